package payload

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Merge lays the JSON object raw over the object doc, key by key. Where both hold an object under a key that deep accepts,
// these two are merged key by key as well; everywhere else raw replaces. It is the slow way, for messages that have raw.
func Merge(doc, raw []byte, deep func(key string) bool) ([]byte, error) {
	var base, over map[string]json.RawMessage
	if err := json.Unmarshal(doc, &base); err != nil {
		return nil, fmt.Errorf("read the payload: %w", err)
	}
	if err := json.Unmarshal(raw, &over); err != nil {
		return nil, fmt.Errorf("raw is not a JSON object: %w", err)
	}
	for key, value := range over {
		var below, above map[string]json.RawMessage
		if deep(key) && readObject(base[key], &below) && readObject(value, &above) {
			for k, v := range above {
				below[k] = v
			}
			merged, err := encode(below)
			if err != nil {
				return nil, err
			}
			value = merged
		}
		base[key] = value
	}
	return encode(base)
}

// readObject reads a JSON object; it reports false for anything else.
func readObject(b json.RawMessage, into *map[string]json.RawMessage) bool {
	return len(b) > 0 && json.Unmarshal(b, into) == nil && *into != nil
}

func encode(m map[string]json.RawMessage) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // as AppendString, for the same reason
	if err := e.Encode(m); err != nil {
		return nil, fmt.Errorf("write the merged payload: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
