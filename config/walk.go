package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/belfry/belfry/message"
)

// field is one key of a configuration: where it is, its struct, and its value.
type field struct {
	path   string
	tag    reflect.StructField
	parent reflect.Value
	value  reflect.Value
}

// key is the field's name in YAML.
func key(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// walk visits every key under v that is set to a value, not to a section: strings, numbers, and lists of them. A rule's
// message is left alone: it is text for people, with a syntax of its own.
func walk(v reflect.Value, path string, visit func(field)) {
	switch {
	case v.Kind() == reflect.Pointer:
		if !v.IsNil() {
			walk(v.Elem(), path, visit)
		}
	case v.Type() == reflect.TypeFor[message.Message]():
	case v.Kind() == reflect.Map:
		names := slices.SortedFunc(maps.Keys(v.Interface().(map[string]*App)), strings.Compare)
		for _, name := range names {
			walk(v.MapIndex(reflect.ValueOf(name)), join(path, name), visit)
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			walk(v.Index(i), fmt.Sprintf("%s[%d]", path, i), visit)
		}
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			at := join(path, key(f))
			if section(f.Type) {
				walk(v.Field(i), at, visit)
				continue
			}
			visit(field{at, f, v, v.Field(i)})
		}
	}
}

// section says that a key of this type holds more keys.
func section(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	return t.Kind() == reflect.Struct
}
