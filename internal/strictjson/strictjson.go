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
	"reflect"
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
// The caller makes sure that IsObject(object). Members returns nothing for any other
// JSON value, and ends at the first syntax error.
func Members(object []byte) iter.Seq2[string, json.RawMessage] {
	return func(yield func(string, json.RawMessage) bool) {
		decoder := json.NewDecoder(bytes.NewReader(object))
		if first, _ := decoder.Token(); first != json.Delim('{') {
			return
		}
		for decoder.More() {
			token, _ := decoder.Token()
			name, ok := token.(string)
			var value json.RawMessage
			if !ok || decoder.Decode(&value) != nil || !yield(name, value) {
				return
			}
		}
	}
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

// Unmarshal reads a JSON object into the struct that into points to. The caller makes
// sure that IsObject(object).
//
// The fields are strings, booleans, slices of strings, or structs of such fields.
// Each takes the member that its json tag names, in exactly this letter case. A field
// without a tag takes none, and a member without a field is ignored. null is as good
// as no member. It is an error if a member that has a field appears more than once.
func Unmarshal(object []byte, into any) error {
	return unmarshal(object, reflect.ValueOf(into).Elem())
}

func unmarshal(object []byte, into reflect.Value) error {
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
		if seen[name] {
			return fmt.Errorf("%s appears more than once", name)
		}
		seen[name] = true
		if field.Kind() == reflect.Struct && value[0] == '{' {
			if err := unmarshal(value, field); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		} else if json.Unmarshal(value, field.Addr().Interface()) != nil { // The error quotes the value.
			return fmt.Errorf("%s is not a %s", name, nameOf(field.Kind()))
		}
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
