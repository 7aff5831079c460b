package payload

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Overlay is a message's own raw JSON object, taken apart to be laid over a payload.
type Overlay []over

// over is one field of an overlay.
type over struct {
	key   string
	value string
	// within are its fields where it is an object itself, else nil.
	within Overlay
}

// ParseOverlay reads a message's raw JSON. None, and null, are an empty overlay.
func ParseOverlay(raw []byte) (Overlay, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	return parseOverlay(raw, true)
}

// parseOverlay takes apart an object, and if within is set the objects in it, but no deeper: that is all that Lay merges.
func parseOverlay(raw []byte, within bool) (Overlay, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fmt.Errorf("raw is not a JSON object: %w", err)
	}
	out := make(Overlay, 0, len(fields))
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		var compact bytes.Buffer
		if err := json.Compact(&compact, fields[key]); err != nil {
			return nil, fmt.Errorf("raw is not JSON: %w", err)
		}
		f := over{key: key, value: compact.String()}
		if within && f.value[0] == '{' {
			var err error
			if f.within, err = parseOverlay(fields[key], false); err != nil {
				return nil, err
			}
		}
		out = append(out, f)
	}
	return out, nil
}

// Lay lays the overlay over the object, key by key. Where both have an object under a key that deep accepts, these two are
// merged key by key as well; everywhere else the overlay replaces.
func (o *Object) Lay(overlay Overlay, deep func(key string) bool) {
	for _, above := range overlay {
		below := o.find(above.key)
		if deep(above.key) && below != nil && below.kind == object && above.value[0] == '{' {
			below.object.Lay(above.within, func(string) bool { return false })
			continue
		}
		replacement := field{key: above.key, kind: raw, value: above.value}
		if below != nil {
			*below = replacement
		} else {
			o.add(replacement)
		}
	}
}

func (o *Object) find(key string) *field {
	for i := range o.fields {
		if o.fields[i].key == key {
			return &o.fields[i]
		}
	}
	return nil
}
