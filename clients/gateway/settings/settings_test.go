package settings

import (
	"os"
	"regexp"
	"testing"
)

// The file is what people read, the tags are what is done.
func TestTheExampleHasAllSettingsWithTheirDefaults(t *testing.T) {
	text, err := os.ReadFile("../../../.env.gateway.example")
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]bool{}
	var environ []string
	for _, line := range regexp.MustCompile(`(?m)^(\w+)=.*$`).FindAllStringSubmatch(string(text), -1) {
		written[line[1]] = true
		environ = append(environ, line[0])
	}
	for _, name := range Names() {
		if !written[name] {
			t.Errorf("%s is not in the example", name)
		}
	}
	fromExample, err := Read(environ)
	if err != nil {
		t.Fatal(err)
	}
	defaults, err := Read(nil)
	if err != nil {
		t.Fatal(err)
	}
	if fromExample != defaults {
		t.Errorf("the example says %+v, the defaults are %+v", fromExample, defaults)
	}
}

func TestWhatCannotBeIsRefused(t *testing.T) {
	for _, setting := range []string{
		"GATEWAY_ADRESS=x", "GATEWAY_MAX_UPLOADS=0", "GATEWAY_MAX_UPLOADS=many", "GATEWAY_WINDOW_BYTES=1000",
		"GATEWAY_TLS_KEY_FILE=key.pem", "GATEWAY_TLS_CLIENT_CA_FILE=ca.pem", "GATEWAY_SERVER_CA_FILE=ca.pem",
		"GATEWAY_PATIENCE_SECONDS=-1",
	} {
		if _, err := Read([]string{setting}); err == nil {
			t.Errorf("%s is accepted", setting)
		}
	}
}
