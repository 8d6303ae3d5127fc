// Package strictjson is a stand-in until merged.
package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"reflect"
	"strings"
)

func Members(object []byte) iter.Seq2[string, json.RawMessage] {
	return func(yield func(string, json.RawMessage) bool) {
		decoder := json.NewDecoder(bytes.NewReader(object))
		_, _ = decoder.Token()
		for decoder.More() {
			token, _ := decoder.Token()
			var value json.RawMessage
			_ = decoder.Decode(&value)
			name, _ := token.(string)
			if !yield(name, value) {
				return
			}
		}
	}
}

func IsObject(body []byte) bool {
	return json.Valid(body) && bytes.HasPrefix(bytes.TrimSpace(body), []byte("{"))
}

func Unmarshal(object []byte, into any) error {
	return unmarshal(object, reflect.ValueOf(into).Elem())
}

func unmarshal(object []byte, into reflect.Value) error {
	fields := make(map[string]reflect.Value)
	for i := range into.NumField() {
		name, _, _ := strings.Cut(into.Type().Field(i).Tag.Get("json"), ",")
		fields[name] = into.Field(i)
	}
	seen := make(map[string]bool)
	for name, value := range Members(object) {
		field, known := fields[name]
		if !known {
			continue // RFC 8414, Section 3.2
		}
		if seen[name] {
			return fmt.Errorf("%s appears more than once", name)
		}
		seen[name] = true
		var err error
		if field.Kind() == reflect.Struct && value[0] == '{' {
			err = unmarshal(value, field)
		} else if json.Unmarshal(value, field.Addr().Interface()) != nil {
			err = fmt.Errorf("it is not a %s", map[reflect.Kind]string{
				reflect.String: "string", reflect.Slice: "list of strings", reflect.Bool: "boolean", reflect.Struct: "JSON object",
			}[field.Kind()])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
