package config

import "log/slog"

// Secret is a password, token or key. However it is printed, logged or encoded, it does not show.
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

const redacted = "[redacted]"

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

func (s Secret) GoString() string             { return `"` + s.String() + `"` }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(s.String()) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
