package exchange

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"

	"golang.org/x/net/http2"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/wire"
)

// Verdict reads a result without an answer, the same for every platform (docs/providers.md, "No answer"). Whatever keeps one
// from coming, it may be this one target's: a push service may have a host for each.
func Verdict(res *wire.Result) senders.Verdict {
	err := res.Err
	var refusal *senders.Refusal
	if errors.As(err, &refusal) {
		return senders.Verdict{Next: senders.End, Outcome: refusal.Outcome, Code: refusal.Code}
	}
	var invalid *wire.InvalidError
	if errors.As(err, &invalid) {
		// Its own fault: no other delivery of the destination need wait for it.
		return senders.Verdict{Next: senders.End, Outcome: pb.Outcome_OUTCOME_REJECTED, Code: "bad-request"}
	}
	v := senders.Verdict{Next: senders.Later, Of: senders.OfDevice | senders.OfService, Unknown: res.Sent}

	var stream http2.StreamError
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &stream) && stream.Code == http2.ErrCodeRefusedStream:
		// RFC 9113 section 8.7: the stream was closed before any processing.
		return senders.Verdict{Next: senders.Again, Code: "refused-stream"}
	case errors.As(err, &stream):
		v.Code = "reset"
	case errors.Is(err, wire.ErrClosed), errors.Is(err, context.Canceled):
		v.Code, v.Of = "interrupted", 0
	case errors.As(err, &dns):
		v.Code, v.Unknown = "dns", false
	case isTLS(err):
		v.Code, v.Unknown = "tls", false
	case errors.As(err, &op) && op.Op == "remote error":
		// A TLS alert of the peer, as crypto/tls makes it: of the handshake, when nothing was sent.
		v.Code = "tls"
	case errors.As(err, &op) && op.Op == "dial":
		v.Code, v.Unknown = "dial", false
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		v.Code, v.Slow = "timeout", true
	default:
		v.Code = "connection"
	}
	return v
}

// isTLS tells a failed handshake, or a certificate of ours refused after it (TLS 1.3 says so on the first read).
func isTLS(err error) bool {
	var verify *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	var alert tls.AlertError
	var host x509.HostnameError
	var authority x509.UnknownAuthorityError
	return errors.As(err, &verify) || errors.As(err, &header) || errors.As(err, &alert) ||
		errors.As(err, &host) || errors.As(err, &authority)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
