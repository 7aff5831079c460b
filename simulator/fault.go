package simulator

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

// FaultKind is what a fault does.
type FaultKind string

// The kinds. BlackHole and Drip act on connections, the others on requests.
const (
	Latency     FaultKind = "latency"     // answer after Delay, and up to Jitter more
	Stall       FaultKind = "stall"       // answer when lifted
	Status      FaultKind = "status"      // answer Status
	Credentials FaultKind = "credentials" // refuse the app's credentials, as this provider does
	Quota       FaultKind = "quota"       // take PerSecond or PerMinute, with Burst, and throttle the rest
	Disruptive  FaultKind = "disruptive"  // a Quota: Chrome has found today that the app's site pushes much and is visited little
	Unregister  FaultKind = "gone"        // the target is gone
	Mismatch    FaultKind = "mismatched"  // the target belongs to another bundle id, sender or VAPID key of the app's
	Rename      FaultKind = "renamed"     // FCM: the app has registered by the other of token and installation id since
	Reset       FaultKind = "reset"       // RST_STREAM
	GoAway      FaultKind = "goaway"      // answer, with a GOAWAY: streams begun after it are not seen
	Cut         FaultKind = "close"       // close the connection, whatever is in flight on it
	BlackHole   FaultKind = "blackhole"   // accept connections, read and write no byte
	Drip        FaultKind = "drip"        // write PerSecond bytes a second
)

var kinds = []FaultKind{
	Latency, Stall, Status, Credentials, Quota, Disruptive, Unregister, Mismatch, Rename, Reset, GoAway, Cut, BlackHole, Drip,
}

// Each is what a quota counts apart.
type Each string

// What a quota may count apart. By default all that the fault strikes is counted together.
const (
	EachApp     Each = "app"     // an APNs team, an FCM project, a VAPID key
	EachTarget  Each = "target"  // a device
	EachAddress Each = "address" // a client's
)

// Duration is a time.Duration, in JSON "1m30s".
type Duration time.Duration

// MarshalText writes it as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration does.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Fault is a sickness of a provider, or of some of its targets. It strikes the requests that match Platform, Origin and
// App; an empty one matches all. Origin is a service's name. The token server is a platform of its own, "oauth".
type Fault struct {
	Kind     FaultKind `json:"kind"`
	Platform string    `json:"platform,omitempty"`
	Origin   string    `json:"origin,omitempty"`
	App      string    `json:"app,omitempty"`

	// Share is the share of the population's targets that it strikes, from above 0 to 1: always the same ones for one Seed.
	// 0 is all requests, also those for nobody that is known. The targets begin at From: of two faults with one seed, a From
	// of 0 and a Share of 0.2, and a From of 0.2 and a Share of 0.3, no target has both.
	Share float64 `json:"share,omitempty"`
	From  float64 `json:"from,omitempty"`
	Seed  uint64  `json:"seed,omitempty"`
	// Targets are those that it strikes, by device id, token, installation id or endpoint; besides the Share, if there is one.
	Targets []string `json:"targets,omitempty"`
	// Rate is the share of the requests that it strikes, from above 0 to 1, drawn for each anew. 0 is all.
	Rate float64 `json:"rate,omitempty"`

	// For lifts it after that long. 0: when it is cleared.
	For Duration `json:"for,omitempty"`
	// AfterAccepting takes the message, with a receipt, before the fault strikes the answer: for the sender it is unknown.
	AfterAccepting bool `json:"after_accepting,omitempty"`

	Delay      Duration `json:"delay,omitempty"`
	Jitter     Duration `json:"jitter,omitempty"`
	Code       string   `json:"code,omitempty"` // of a reset, by its name in RFC 9113 section 7; INTERNAL_ERROR by default
	Status     int      `json:"status,omitempty"`
	Reason     string   `json:"reason,omitempty"`      // the provider's word; by default the status's usual one
	RetryAfter int      `json:"retry_after,omitempty"` // seconds
	Timestamp  int64    `json:"timestamp,omitempty"`   // of an APNs 410, Unix ms; now by default

	PerSecond float64 `json:"per_second,omitempty"`
	PerMinute float64 `json:"per_minute,omitempty"`
	// Burst is how much is taken at once when nothing was for long: 1 by default, or with PerMinute a minute's.
	Burst int `json:"burst,omitempty"`
	// Window counts in fixed seconds or minutes, each with its whole number at once, instead of letting it trickle.
	Window bool `json:"window,omitempty"`
	Each   Each `json:"each,omitempty"`
}

// FaultState is a fault in force.
type FaultState struct {
	Fault
	// Struck is how many requests, or reads and writes of a connection, it has struck. What a quota lets through it has not.
	Struck int64 `json:"struck"`
}

// ReadFaults reads faults by their names, from a JSON object. A field that no fault has is an error.
func ReadFaults(r io.Reader) (map[string]Fault, error) {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	var all map[string]Fault
	if err := dec.Decode(&all); err != nil {
		return nil, fmt.Errorf("simulator: faults: %w", err)
	}
	return all, nil
}

func (f *Fault) onConnections() bool { return f.Kind == BlackHole || f.Kind == Drip }

// changesTargets says that the fault changes what is true of its targets, and the provider finds that out by its rules.
func (f *Fault) changesTargets() bool {
	return f.Kind == Unregister || f.Kind == Mismatch || f.Kind == Rename
}

func (f *Fault) counts() bool { return f.Kind == Quota || f.Kind == Disruptive }

// aimed says that it strikes some targets and no others.
func (f *Fault) aimed() bool { return f.Share > 0 || len(f.Targets) > 0 }

func (f *Fault) check() error {
	var wrong faultErrors
	f.checkScope(&wrong)
	f.checkKind(&wrong)
	f.checkCounting(&wrong)
	if f.onConnections() {
		wrong.say(f.App != "", "%s takes whole connections, which apps may share: use stall or latency for one app", f.Kind)
		wrong.say(f.Rate != 0 || f.aimed(), "%s takes all connections: it has no rate, share or targets", f.Kind)
		wrong.say(f.AfterAccepting, "%s acts before a request is read: after_accepting does not apply", f.Kind)
	}
	if wrong != nil {
		return fmt.Errorf("simulator: fault: %s", strings.Join(wrong, "; "))
	}
	return nil
}

type faultErrors []string

func (w *faultErrors) say(wrong bool, format string, args ...any) {
	if wrong {
		*w = append(*w, fmt.Sprintf(format, args...))
	}
}

func (f *Fault) checkScope(wrong *faultErrors) {
	wrong.say(f.Platform != "" && !slices.Contains([]string{"apns", "fcm", "oauth", "webpush"}, f.Platform),
		"platform %q is none of apns, fcm, oauth, webpush", f.Platform)
	wrong.say(f.Origin != "" && !slices.Contains(serviceNames[:], f.Origin), "origin %q is none of %v", f.Origin, serviceNames)
	wrong.say(f.Rate < 0 || f.Rate > 1, "rate %g is not from 0 to 1", f.Rate)
	wrong.say(f.Share < 0 || f.From < 0 || f.From+f.Share > 1+1e-9, "share %g from %g: shares are not negative, and end at 1", f.Share, f.From)
	wrong.say(f.Share == 0 && (f.From != 0 || f.Seed != 0), "from and seed say which share: give a share")
	wrong.say(f.aimed() && f.Platform == "oauth", "the token server has no targets")
	wrong.say(f.For < 0 || f.Delay < 0 || f.Jitter < 0 || f.RetryAfter < 0 || f.Burst < 0, "a time or burst is negative")
}

func (f *Fault) checkKind(wrong *faultErrors) {
	wrong.say(!slices.Contains(kinds, f.Kind), "kind %q is none of %v", f.Kind, kinds)
	wrong.say(f.Kind == Latency && f.Delay+f.Jitter == 0, "latency needs a delay or a jitter")
	wrong.say(f.Kind == Status && (f.Status < 300 || f.Status > 599), "status %d is not from 300 to 599", f.Status)
	if _, known := resetCodes[f.Code]; f.Code != "" {
		wrong.say(f.Kind != Reset || !known, "code %q: a reset has one, and by a name of RFC 9113's, as REFUSED_STREAM", f.Code)
		wrong.say(f.Code == http2.ErrCodeRefusedStream.String() && f.AfterAccepting, "code REFUSED_STREAM says that nothing was accepted")
	}
	wrong.say(f.changesTargets() && !f.aimed(), "%s needs a share or targets", f.Kind)
	wrong.say(f.changesTargets() && f.AfterAccepting, "%s is found before a message is accepted: after_accepting does not apply", f.Kind)
	wrong.say(f.Kind == Mismatch && !slices.Contains([]string{"", "BadDeviceToken", "DeviceTokenNotForTopic"}, f.Reason),
		"reason %q: a mismatch at APNs is a BadDeviceToken, of the other environment, or a DeviceTokenNotForTopic", f.Reason)
}

func (f *Fault) checkCounting(wrong *faultErrors) {
	wrong.say(f.Kind == Drip && f.PerSecond <= 0, "drip needs a per_second above 0")
	wrong.say(f.Kind == Quota && (f.PerSecond > 0) == (f.PerMinute > 0) || f.PerSecond < 0 || f.PerMinute < 0,
		"%s needs a per_second or a per_minute above 0, and not both", f.Kind)
	wrong.say(!slices.Contains([]Each{"", EachApp, EachTarget, EachAddress}, f.Each), "each %q is none of app, target, address", f.Each)
	wrong.say((f.Window || f.Each != "") && !f.counts(), "%s counts nothing: it has no window and no each", f.Kind)
	wrong.say(f.Window && f.Burst > 0, "a window takes its whole number at once: it has no burst")
	if f.Kind == Disruptive {
		wrong.say(f.App == "", "disruptive is one app's site: give an app")
		wrong.say(f.Origin != "" && f.Origin != Chrome.String(), "disruptive is Chrome's word: its origin is chrome")
		wrong.say(f.For != 0 || f.PerSecond != 0 || f.Each != "", "disruptive lasts as long as Chrome says, and counts by the minute")
	}
}
