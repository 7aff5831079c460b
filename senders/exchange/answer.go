package exchange

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/belfry/belfry/senders/wire"
)

// maxWait bounds what a provider may ask for: longer than any delivery lives (7 days).
const maxWait = 7 * 24 * time.Hour

// RetryAfter reads the header of that name, in seconds or as a date (RFC 9110 section 10.2.3): 0 when there is none, or
// none that can be read.
func RetryAfter(h wire.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("retry-after"))
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(maxWait/time.Second))) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(0, at.Sub(now)), maxWait)
}

// Word is a provider's own code when it is fit to be counted and shown, else "". An answer may come from anything that
// stands where the provider should be.
func Word(code string) string {
	if len(code) > 64 {
		return ""
	}
	for _, c := range []byte(code) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-', c == '.':
		default:
			return ""
		}
	}
	return code
}
