package wire

import (
	"encoding/binary"
	"time"

	"golang.org/x/net/http2"
)

const (
	// pingAfter is the silence after which a connection is asked whether it lives, and pongWithin how long it has to say
	// so. Together they are how long a connection cut without a word can keep deliveries waiting.
	pingAfter  = 10 * time.Second
	pongWithin = 5 * time.Second
)

// pings are what is asked of a connection by PING: whether it lives, and whether the peer has read our last RST_STREAM.
//
// A stream that we reset is open for the peer until it has read that. Were its place given away at once, a peer that answers
// nothing would get a new stream for each deadline, which is an attack by another name (CVE-2023-44487). So it lingers until
// the answer to a PING that was sent after the reset. One PING is under way at a time. The conn's mu guards it.
type pings struct {
	sent, answered uint64
	// covered are the streams reset before the PING under way, late those after it.
	covered, late int
	// at is when the PING under way was sent, to a tick of the watch; zero: not yet noticed by it.
	at time.Time
	// heard is that the peer said something since the last tick, and last when that was.
	heard bool
	last  time.Time
}

func (p *pings) lingering() int { return p.covered + p.late }

func (p *pings) underWay() bool { return p.sent != p.answered }

func (p *pings) linger(f *http2.Framer) {
	p.late++
	if !p.underWay() {
		p.ask(f)
	}
}

func (p *pings) ask(f *http2.Framer) {
	p.sent++
	p.at = time.Time{}
	p.covered, p.late = p.late, 0
	_ = f.WritePing(false, p.payload())
}

func (p *pings) payload() (b [8]byte) {
	binary.BigEndian.PutUint64(b[:], p.sent)
	return b
}

// pong takes an answer; others than that to our last question are not ours.
func (p *pings) pong(data [8]byte, f *http2.Framer) {
	if !p.underWay() || data != p.payload() {
		return
	}
	p.answered = p.sent
	p.covered = 0
	if p.late > 0 {
		p.ask(f)
	}
}

// silent asks after a long silence, and is true when a question was not answered in time. A peer that says other things lives.
func (p *pings) silent(now time.Time, f *http2.Framer) bool {
	if p.heard || p.last.IsZero() {
		p.heard, p.last = false, now
	}
	switch {
	case p.underWay() && p.at.IsZero():
		p.at = now
	case p.underWay():
		return now.Sub(p.at) >= pongWithin && now.Sub(p.last) >= pongWithin
	case now.Sub(p.last) >= pingAfter:
		p.ask(f)
		p.at = now
	}
	return false
}
