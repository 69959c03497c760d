package codec

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
)

const hex = "0123456789abcdef"

// AppendText appends a JSON string. encoding/json would escape <, > and & too, which is for pages.
func AppendText(text []byte, value string) []byte {
	text = append(text, '"')
	for _, char := range value {
		switch {
		case char == '"' || char == '\\':
			text = append(text, '\\', byte(char))
		case char == '\n':
			text = append(text, '\\', 'n')
		case char < ' ' || char == 0x7f:
			text = append(text, '\\', 'u', '0', '0', hex[char>>4], hex[char&15])
		case char == utf8.RuneError:
			text = append(text, "\uFFFD"...)
		default:
			text = utf8.AppendRune(text, char)
		}
	}
	return append(text, '"')
}

func sortedKeys(entries protoreflect.Map) []protoreflect.MapKey {
	keys := make([]protoreflect.MapKey, 0, entries.Len())
	entries.Range(func(key protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, key)
		return true
	})
	slices.SortFunc(keys, func(a, b protoreflect.MapKey) int { return cmp.Compare(a.String(), b.String()) })
	return keys
}

// quoteInexact makes strings of the numbers that a google.protobuf.Value, a double, cannot hold: integers
// beyond 2^53 and what overflows. The contract takes an id as a number or as its digits, and a string in the
// place of a number rejects its row alone; typed fields of integers take both.
func quoteInexact(text []byte) []byte {
	var out bytes.Buffer
	copied := 0
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '"':
			i = endOfString(text, i)
		case c == '-' || c >= '0' && c <= '9':
			end := endOfNumber(text, i)
			if isInexact(text[i:end]) {
				out.Write(text[copied:i])
				out.WriteByte('"')
				out.Write(text[i:end])
				out.WriteByte('"')
				copied = end
			}
			i = end
		default:
			i++
		}
	}
	if copied == 0 {
		return text
	}
	out.Write(text[copied:])
	return out.Bytes()
}

// endOfString is the index behind the string that begins at start, or the end of a text that breaks off in it.
func endOfString(text []byte, start int) int {
	for i := start + 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

func endOfNumber(text []byte, start int) int {
	for i := start; i < len(text); i++ {
		switch c := text[i]; {
		case c >= '0' && c <= '9', c == '-', c == '+', c == '.', c == 'e', c == 'E':
		default:
			return i
		}
	}
	return len(text)
}

func isInexact(number []byte) bool {
	value, err := strconv.ParseFloat(string(number), 64)
	if err != nil {
		return math.IsInf(value, 0)
	}
	return math.Abs(value) >= LargestExact && !bytes.ContainsAny(number, ".eE")
}
