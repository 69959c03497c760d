// Package codec is the JSON that the gateway speaks: names as the contract has them, zeros and empty lists
// present, enums by name, 64-bit integers as numbers up to 2^53 and as strings of digits beyond.
package codec

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"math"
	"strconv"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"headrace.internal/clients/gateway/failure"
)

// ContentType is that of JSON bodies.
const ContentType = "application/json"

// LargestExact is the largest integer to which every integer is a number of JavaScript and of most readers of JSON.
const LargestExact = 1 << 53

// Codec is the Marshaler of the gateway's mux.
type Codec struct{ runtime.JSONPb }

// New makes a codec. Fields that a request does not have are errors: a misspelt option would change what is done.
func New() *Codec { return &Codec{} }

// ContentType is that of every answer.
func (*Codec) ContentType(any) string { return ContentType }

// Marshal renders a message, or anything else as encoding/json does.
func (*Codec) Marshal(value any) ([]byte, error) {
	if message, ok := value.(proto.Message); ok {
		text, err := Append(nil, message)
		return append(text, '\n'), err
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	// < and > are escaped for pages only, which this is not.
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return text.Bytes(), err
}

// NewDecoder reads one JSON value. Integers beyond 2^53 keep their digits, as ids of rows have to.
func (c *Codec) NewDecoder(body io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(into any) error {
		text, err := io.ReadAll(body)
		if err != nil {
			return err
		}
		decoder := c.JSONPb.NewDecoder(bytes.NewReader(quoteInexact(text)))
		if err := decoder.Decode(into); err != nil {
			return err
		}
		return endOf(decoder)
	})
}

// endOf is an error if something follows the value.
func endOf(decoder runtime.Decoder) error {
	var rest json.RawMessage
	if err := decoder.(runtime.DecoderWrapper).Decoder.Decode(&rest); err != io.EOF {
		return failure.Malformed("The body has more than one JSON value; send one.")
	}
	return nil
}

// Append appends a message as JSON.
func Append(text []byte, message proto.Message) ([]byte, error) {
	return appendMessage(text, message.ProtoReflect())
}

func appendMessage(text []byte, message protoreflect.Message) ([]byte, error) {
	descriptor := message.Descriptor()
	switch {
	case descriptor.FullName() == "google.rpc.Status":
		body, err := json.Marshal(failure.OfStatus(message.Interface().(*statuspb.Status)))
		return append(text, body...), err
	case descriptor.FullName().Parent() == "google.protobuf":
		return appendWellKnown(text, message.Interface())
	}
	text = append(text, '{')
	first := true
	fields := descriptor.Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if field.HasPresence() && !message.Has(field) {
			continue
		}
		if !first {
			text = append(text, ',')
		}
		first = false
		text = append(AppendText(text, string(field.Name())), ':')
		var err error
		if text, err = appendField(text, field, message.Get(field)); err != nil {
			return nil, err
		}
	}
	return append(text, '}'), nil
}

func appendField(text []byte, field protoreflect.FieldDescriptor, value protoreflect.Value) ([]byte, error) {
	var err error
	switch {
	case field.IsList():
		list := value.List()
		text = append(text, '[')
		for i := range list.Len() {
			if i > 0 {
				text = append(text, ',')
			}
			if text, err = appendValue(text, field, list.Get(i)); err != nil {
				return nil, err
			}
		}
		return append(text, ']'), nil
	case field.IsMap():
		return appendMap(text, field.MapValue(), value.Map())
	default:
		return appendValue(text, field, value)
	}
}

func appendMap(text []byte, field protoreflect.FieldDescriptor, entries protoreflect.Map) ([]byte, error) {
	text = append(text, '{')
	for i, key := range sortedKeys(entries) {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(AppendText(text, key.String()), ':')
		var err error
		if text, err = appendValue(text, field, entries.Get(key)); err != nil {
			return nil, err
		}
	}
	return append(text, '}'), nil
}

func appendValue(text []byte, field protoreflect.FieldDescriptor, value protoreflect.Value) ([]byte, error) {
	switch field.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return appendMessage(text, value.Message())
	case protoreflect.EnumKind:
		if known := field.Enum().Values().ByNumber(value.Enum()); known != nil {
			return AppendText(text, string(known.Name())), nil
		}
		return strconv.AppendInt(text, int64(value.Enum()), 10), nil
	case protoreflect.BoolKind:
		return strconv.AppendBool(text, value.Bool()), nil
	case protoreflect.StringKind:
		return AppendText(text, value.String()), nil
	case protoreflect.BytesKind:
		return AppendText(text, base64.StdEncoding.EncodeToString(value.Bytes())), nil
	case protoreflect.FloatKind:
		return AppendFloat(text, value.Float(), 32), nil
	case protoreflect.DoubleKind:
		return AppendFloat(text, value.Float(), 64), nil
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return AppendUint(text, value.Uint()), nil
	default:
		return AppendInt(text, value.Int()), nil
	}
}

// AppendInt appends an integer: a number if every reader of JSON can hold it, else a string of its digits.
func AppendInt(text []byte, value int64) []byte {
	if value >= -LargestExact && value <= LargestExact {
		return strconv.AppendInt(text, value, 10)
	}
	return append(strconv.AppendInt(append(text, '"'), value, 10), '"')
}

// AppendUint is AppendInt for unsigned integers.
func AppendUint(text []byte, value uint64) []byte {
	if value <= LargestExact {
		return strconv.AppendUint(text, value, 10)
	}
	return append(strconv.AppendUint(append(text, '"'), value, 10), '"')
}

// AppendFloat appends a number; those that JSON has no number for are the strings NaN, Infinity and -Infinity.
func AppendFloat(text []byte, value float64, bits int) []byte {
	switch {
	case math.IsNaN(value):
		return append(text, `"NaN"`...)
	case math.IsInf(value, 1):
		return append(text, `"Infinity"`...)
	case math.IsInf(value, -1):
		return append(text, `"-Infinity"`...)
	}
	// As encoding/json and JavaScript choose between the two forms.
	format := byte('f')
	if size := math.Abs(value); size != 0 && (size < 1e-6 || size >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(text, value, format, -1, bits)
}

func appendWellKnown(text []byte, message proto.Message) ([]byte, error) {
	rendered, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(message)
	if err != nil {
		return nil, err
	}
	// protojson puts spaces where it likes, so that nobody compares its bytes.
	buffer := bytes.NewBuffer(text)
	err = json.Compact(buffer, rendered)
	return buffer.Bytes(), err
}
