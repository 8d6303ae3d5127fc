// Package strictjson reads JSON objects so that no two readers can understand them
// differently. encoding/json ignores the letter case of names and silently takes the
// last of several members of one name; this package takes exact names and reports
// repeated members.
//
// No error quotes a value, and no error quotes a name that the caller doesn't know.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// IsObject reports whether data is one JSON object with nothing after it. Like
// encoding/json it accepts text that isn't valid UTF-8.
func IsObject(data []byte) bool {
	return json.Valid(data) && bytes.HasPrefix(bytes.TrimSpace(data), []byte("{"))
}

// Members returns the members of a JSON object in their order. A name that appears
// more than once is returned more than once.
//
// The caller makes sure that object is valid JSON. Members returns nothing for any other
// value than an object. It doesn't use a json.Decoder: that checks each value again, and would
// take most of the time that a token response costs.
func Members(object []byte) iter.Seq2[string, json.RawMessage] {
	return func(yield func(string, json.RawMessage) bool) {
		rest, isObject := bytes.CutPrefix(trim(object), []byte("{"))
		for isObject {
			rest = trim(rest)
			name := rest[:length(rest)]
			rest = trim(rest[len(name):])
			rest = trim(rest[min(1, len(rest)):]) // After the colon.
			value := rest[:length(rest)]
			rest = trim(rest[len(value):])
			if len(value) == 0 || !yield(unquote(name), value) {
				return
			}
			rest, isObject = bytes.CutPrefix(rest, []byte(","))
		}
	}
}

const space = " \t\r\n" // RFC 8259, Section 2

func trim(data []byte) []byte { return bytes.TrimLeft(data, space) }

// length returns the length of the value at the start of data, which is valid JSON.
func length(data []byte) int {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
			if !quoted && depth == 0 {
				return i + 1
			}
		case quoted:
		case c == '{', c == '[':
			depth++
		case depth > 0 && (c == '}' || c == ']'):
			if depth--; depth == 0 {
				return i + 1
			}
		case depth == 0 && strings.IndexByte(",}]:"+space, c) >= 0:
			return i // After a number or a word.
		}
	}
	return len(data)
}

// unquote returns the text of a JSON string.
func unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 && utf8.Valid(quoted) {
		return string(bytes.Trim(quoted, `"`))
	}
	var text string
	_ = json.Unmarshal(quoted, &text) // It is valid.
	return text
}

// Value decodes a valid JSON value as encoding/json does into a variable of type any. A number
// that float64 can't hold is nil, as it is there.
func Value(value json.RawMessage) any {
	switch c := value[0]; {
	case c == '"':
		return unquote(value)
	case c == '-' || '0' <= c && c <= '9':
		text := string(value)
		if number, err := strconv.ParseUint(text, 10, 53); err == nil { // Most numbers; ParseFloat takes much more stack.
			return float64(number)
		}
		if number, err := strconv.ParseFloat(text, 64); err == nil {
			return number
		}
		return nil
	}
	var v any
	_ = json.Unmarshal(value, &v)
	return v
}

// Object returns the members of the JSON object in data. It is an error if data isn't
// valid UTF-8, isn't exactly one object, or has a member more than once.
//
// The errors call the data "it", for the caller to say what that is.
func Object(data []byte) (map[string]json.RawMessage, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	var object json.RawMessage
	if err := decoder.Decode(&object); err != nil || !utf8.Valid(data) {
		return nil, errors.New("it isn't valid JSON") // err quotes the data.
	}
	if object[0] != '{' {
		return nil, errors.New("it isn't a JSON object")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows it; remove that")
	}
	members := make(map[string]json.RawMessage)
	for name, value := range Members(object) {
		if _, ok := members[name]; ok {
			return nil, errors.New("one of its members appears more than once")
		}
		members[name] = value
	}
	return members, nil
}

// DropNull removes the members whose value is null, which is as good as no member.
func DropNull(members map[string]json.RawMessage) {
	maps.DeleteFunc(members, func(_ string, value json.RawMessage) bool { return string(value) == "null" })
}

// Unmarshal reads a JSON object into the struct that into points to. The caller makes
// sure that IsObject(object).
//
// The fields are strings, booleans, slices of strings, or structs of such fields.
// Each takes the member that its json tag names, in exactly this letter case. A field
// without a tag takes none, and a member without a field is ignored. null is as good
// as no member. A member with a field must have the type of that field, and must not
// appear more than once. If it breaks these rules, that is an error if it is needed,
// and otherwise its field is zero. If the caller names none that are needed, all are.
func Unmarshal(object []byte, into any, needed ...string) error {
	return unmarshal(object, reflect.ValueOf(into).Elem(), needed)
}

func unmarshal(object []byte, into reflect.Value, needed []string) error {
	fields := make(map[string]reflect.Value)
	for i := range into.NumField() {
		name, _, _ := strings.Cut(into.Type().Field(i).Tag.Get("json"), ",")
		if name != "" && name != "-" {
			fields[name] = into.Field(i)
		}
	}
	seen := make(map[string]bool)
	for name, value := range Members(object) {
		field, known := fields[name]
		if !known {
			continue
		}
		err := set(field, name, value)
		if seen[name] {
			err = fmt.Errorf("%s appears more than once", name)
		}
		seen[name] = true
		switch {
		case err == nil:
		case len(needed) == 0 || slices.Contains(needed, name):
			return err
		default:
			field.SetZero()
		}
	}
	return nil
}

// set sets a field to the value of the member with that name.
func set(field reflect.Value, name string, value json.RawMessage) error {
	if field.Kind() == reflect.Struct && value[0] == '{' {
		if err := unmarshal(value, field, nil); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	if json.Unmarshal(value, field.Addr().Interface()) != nil { // The error quotes the value.
		return fmt.Errorf("%s is not a %s", name, nameOf(field.Kind()))
	}
	return nil
}

// nameOf returns what JSON calls the value of a field.
func nameOf(kind reflect.Kind) string {
	switch kind {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Struct:
		return "JSON object"
	default:
		return "list of strings"
	}
}
