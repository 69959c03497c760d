// Package settings reads the gateway's configuration from the environment.
package settings

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
)

// Prefix begins the name of every variable that is the gateway's.
const Prefix = "GATEWAY_"

// Settings are the gateway's configuration. .env.gateway.example documents each.
type Settings struct {
	Address         string     `env:"ADDRESS"            envDefault:"127.0.0.1:8002"`
	TLSCertFile     string     `env:"TLS_CERT_FILE"`
	TLSKeyFile      string     `env:"TLS_KEY_FILE"`
	TLSClientCAFile string     `env:"TLS_CLIENT_CA_FILE"`
	LogLevel        slog.Level `env:"LOG_LEVEL"          envDefault:"INFO"`

	ServerAddress  string `env:"SERVER_ADDRESS"   envDefault:"127.0.0.1:50051"`
	ServerTLS      bool   `env:"SERVER_TLS"       envDefault:"false"`
	ServerCAFile   string `env:"SERVER_CA_FILE"`
	ServerCertFile string `env:"SERVER_CERT_FILE"`
	ServerKeyFile  string `env:"SERVER_KEY_FILE"`

	MaxRequests    int   `env:"MAX_REQUESTS"     envDefault:"256"`
	MaxUploads     int   `env:"MAX_UPLOADS"      envDefault:"16"`
	MaxHeaderBytes int   `env:"MAX_HEADER_BYTES" envDefault:"32768"`
	MaxJSONBytes   int64 `env:"MAX_JSON_BYTES"   envDefault:"4194304"`
	WindowBytes    int   `env:"WINDOW_BYTES"     envDefault:"33554432"`

	HeaderSeconds   int `env:"HEADER_SECONDS"   envDefault:"10"`
	IdleSeconds     int `env:"IDLE_SECONDS"     envDefault:"60"`
	CallSeconds     int `env:"CALL_SECONDS"     envDefault:"60"`
	PatienceSeconds int `env:"PATIENCE_SECONDS" envDefault:"120"`
	StopSeconds     int `env:"STOP_SECONDS"     envDefault:"30"`
}

// Read makes settings of an environment, given as os.Environ gives it. An empty variable counts as one
// that is not there; an unknown one with the prefix is an error, as a misspelt one would be.
func Read(environ []string) (Settings, error) {
	given := map[string]string{}
	for name, value := range env.ToMap(environ) {
		if strings.HasPrefix(name, Prefix) && value != "" {
			given[name] = value
		}
	}
	options := env.Options{Environment: given, Prefix: Prefix}
	settings, err := env.ParseAsWithOptions[Settings](options)
	if err != nil {
		return Settings{}, err
	}
	names := Names()
	for name := range given {
		if !slices.Contains(names, name) {
			return Settings{}, fmt.Errorf("%s is no setting of the gateway; .env.gateway.example lists what there is", name)
		}
	}
	return settings, settings.check()
}

// Names are the variables there are, in the order of the fields of Settings.
func Names() []string {
	fields, err := env.GetFieldParamsWithOptions(&Settings{}, env.Options{Prefix: Prefix})
	if err != nil {
		panic(err) // The tags above are wrong.
	}
	names := make([]string, len(fields))
	for i, field := range fields {
		names[i] = field.Key
	}
	return names
}

// Idle is how long a client may neither send nor take anything.
func (s Settings) Idle() time.Duration { return seconds(s.IdleSeconds) }

// Header is how long a client may take for the head of a request.
func (s Settings) Header() time.Duration { return seconds(s.HeaderSeconds) }

// Call is how long the server may take for a call that is no run.
func (s Settings) Call() time.Duration { return seconds(s.CallSeconds) }

// Patience is how long an upload waits for a server that is away.
func (s Settings) Patience() time.Duration { return seconds(s.PatienceSeconds) }

// Stop is how long requests may take to their end once the gateway is told to stop.
func (s Settings) Stop() time.Duration { return seconds(s.StopSeconds) }

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

func (s Settings) check() error {
	for name, value := range map[string]int64{
		"MAX_REQUESTS": int64(s.MaxRequests), "MAX_UPLOADS": int64(s.MaxUploads),
		"MAX_HEADER_BYTES": int64(s.MaxHeaderBytes), "MAX_JSON_BYTES": s.MaxJSONBytes,
		"HEADER_SECONDS": int64(s.HeaderSeconds), "IDLE_SECONDS": int64(s.IdleSeconds),
		"CALL_SECONDS": int64(s.CallSeconds), "STOP_SECONDS": int64(s.StopSeconds),
	} {
		if value < 1 {
			return fmt.Errorf("%s%s is %d; give a whole number above 0", Prefix, name, value)
		}
	}
	if s.WindowBytes < MinWindowBytes {
		return fmt.Errorf("%sWINDOW_BYTES is %d; give at least %d", Prefix, s.WindowBytes, MinWindowBytes)
	}
	if s.PatienceSeconds < 0 {
		return fmt.Errorf("%sPATIENCE_SECONDS is %d; give 0 or more", Prefix, s.PatienceSeconds)
	}
	if (s.TLSCertFile == "") != (s.TLSKeyFile == "") {
		return errors.New("GATEWAY_TLS_CERT_FILE and GATEWAY_TLS_KEY_FILE go together; give both or none")
	}
	if s.TLSClientCAFile != "" && s.TLSCertFile == "" {
		return errors.New("GATEWAY_TLS_CLIENT_CA_FILE needs GATEWAY_TLS_CERT_FILE and GATEWAY_TLS_KEY_FILE")
	}
	if (s.ServerCertFile == "") != (s.ServerKeyFile == "") {
		return errors.New("GATEWAY_SERVER_CERT_FILE and GATEWAY_SERVER_KEY_FILE go together; give both or none")
	}
	if !s.ServerTLS && s.ServerCAFile+s.ServerCertFile != "" {
		return errors.New("GATEWAY_SERVER_CA_FILE and GATEWAY_SERVER_CERT_FILE need GATEWAY_SERVER_TLS=true")
	}
	return nil
}

// MinWindowBytes is the least that an upload may have on its way: a record of the largest size is not
// acknowledged before its end, so a smaller window would never open again.
const MinWindowBytes = 4 << 20
