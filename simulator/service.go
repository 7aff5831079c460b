package simulator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Service is one of the providers' hosts. Each listens on a port of its own and shares nothing with the others.
type Service uint8

// The services, in the order of their ports.
const (
	APNs Service = iota
	APNsSandbox
	FCM
	OAuth // where FCM's access tokens come from
	Chrome
	Mozilla
	Apple
	Windows
	services
)

var serviceNames = [services]string{"apns", "apns-sandbox", "fcm", "oauth", "chrome", "mozilla", "apple", "windows"}

func (s Service) String() string { return serviceNames[s] }

func (s Service) platform() string {
	switch s {
	case APNs, APNsSandbox:
		return "apns"
	case FCM:
		return "fcm"
	case OAuth:
		return "oauth"
	}
	return "webpush"
}

// provider is what a service's requests mean.
type provider interface {
	// limit is how many bytes of a body are read. A provider sees at most one more, and then says "too large".
	limit() int
	// app is whose request this looks to be, before anything is verified; -1 when that cannot be told.
	app(r *http.Request, body []byte) int
	// judge verifies a request, whole, and answers it.
	judge(r *http.Request, body []byte) answer
	// refuse words an answer that a fault asks for. status is not 0; an empty reason is the status's usual one.
	refuse(f *Fault, status int) answer
}

// answer is a provider's response.
type answer struct {
	status int
	fields []field
	body   []byte

	accepted bool // the message was taken, and a receipt is due
	id       ID
	named    bool // it has an id
}

type field struct{ name, value string }

// endpoint is a service that runs.
type endpoint struct {
	sim      *Simulator
	service  Service
	provider provider
	server   *http.Server
	listener net.Listener
	url      string
}

type connKey struct{}

func (e *endpoint) start(cert tls.Certificate, streams int, done *sync.WaitGroup) error {
	e.server = &http.Server{
		Handler:           e,
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: streams,
			// A window of a few milliseconds of traffic, so that uploads do not wait for updates.
			MaxReceiveBufferPerConnection: 2 << 20,
		},
		Protocols: new(http.Protocols),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c.(*h2conn).under)
		},
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}
	e.server.Protocols.SetUnencryptedHTTP2(true) // above TLS: see tlsListener
	if e.service.platform() != "apns" {          // APNs speaks nothing older
		e.server.Protocols.SetHTTP1(true)
		config.NextProtos = append(config.NextProtos, "http/1.1")
	}
	done.Go(func() {
		err := e.server.Serve(&tlsListener{&faultyListener{Listener: e.listener, endpoint: e}, config})
		if !errors.Is(err, http.ErrServerClosed) {
			e.sim.fail(fmt.Errorf("simulator: %s: %w", e.service, err))
		}
	})
	return nil
}

// bodies are read whole before anything else, into buffers that live as long as their request.
var bodies = sync.Pool{New: func() any { b := make([]byte, 0, 8<<10); return &b }}

// ServeHTTP reads, lets faults strike, judges and answers.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !e.sim.enter() {
		panic(http.ErrAbortHandler)
	}
	defer e.sim.leave()
	buf := bodies.Get().(*[]byte)
	defer bodies.Put(buf)
	body, err := readBody((*buf)[:0], r.Body, e.provider.limit()+1)
	*buf = body
	if err != nil {
		e.sim.receipts.answered(e.service, -1, 0)
		panic(http.ErrAbortHandler)
	}
	app := e.provider.app(r, body)
	a, ok := e.answer(r, body, app)
	if !ok || r.Context().Err() != nil {
		e.sim.receipts.answered(e.service, app, 0)
		// A stream reset, or in HTTP/1.1 a closed connection.
		panic(http.ErrAbortHandler)
	}
	e.sim.receipts.answered(e.service, app, a.status)
	h := w.Header()
	for _, f := range a.fields {
		h[f.name] = []string{f.value}
	}
	if len(a.body) > 0 {
		h["Content-Length"] = []string{strconv.Itoa(len(a.body))}
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // whoever left needs no answer
}

// answer is what the request gets, or false when it gets none.
func (e *endpoint) answer(r *http.Request, body []byte, app int) (a answer, ok bool) {
	struck := e.sim.faults.striking(e.service, app)
	if len(struck) == 0 {
		return e.judge(r, body, app), true
	}
	var also []field
	for _, f := range struck {
		if f.AfterAccepting && a.status == 0 {
			a = e.judge(r, body, app)
		}
		instead, ok := f.strike(r, e.provider)
		if !ok {
			return answer{}, false
		}
		if instead.status != 0 {
			instead.fields = append(instead.fields[:len(instead.fields):len(instead.fields)], also...)
			return instead, true
		}
		also = append(also, instead.fields...)
	}
	if a.status == 0 {
		a = e.judge(r, body, app)
	}
	a.fields = append(a.fields[:len(a.fields):len(a.fields)], also...)
	return a, true
}

func (e *endpoint) judge(r *http.Request, body []byte, app int) answer {
	a := e.provider.judge(r, body)
	if a.accepted {
		if e.sim.accepted != nil && a.named {
			e.sim.accepted(a.id)
		}
		e.sim.receipts.accepted(a.id, a.named, e.sim.appName(app), e.service, a.status, time.Now())
	}
	return a
}

// readBody reads at most limit bytes, and takes the rest as read.
func readBody(buf []byte, r io.Reader, limit int) ([]byte, error) {
	for len(buf) < limit {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):min(cap(buf), limit)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
	return buf, nil
}
