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

// endpoint is a service that runs.
type endpoint struct {
	sim      *Simulator
	service  Service
	server   *http.Server
	listener net.Listener
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

// ServeHTTP reads a request, asks and answers.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !e.sim.enter() {
		panic(http.ErrAbortHandler)
	}
	defer e.sim.leave()
	buf := bodies.Get().(*[]byte)
	defer bodies.Put(buf)
	body, err := readBody((*buf)[:0], r.Body, e.sim.services[e.service].limit()+1)
	*buf = body
	if err != nil {
		e.sim.receipts.answered(e.service, -1, 0)
		panic(http.ErrAbortHandler)
	}
	c := r.Context().Value(connKey{}).(*conn)
	a := e.sim.Ask(r.Context(), &Request{
		Service: e.service, Method: r.Method, Path: r.RequestURI, Header: r.Header, Body: body, From: c.from, Session: &c.Session,
	})
	switch a.Ending {
	case Reset:
		c.code.Store(uint32(a.Code))
	case Cut:
		c.cut()
	}
	if a.Status == 0 {
		// A stream reset, or in HTTP/1.1 a closed connection.
		panic(http.ErrAbortHandler)
	}
	h := w.Header()
	for _, f := range a.Fields {
		h[f.Name] = []string{f.Value}
	}
	if a.Ending == GoAway {
		// net/http turns this into a GOAWAY that names the last stream it has seen.
		h["Connection"] = []string{"close"}
	}
	if len(a.Body) > 0 {
		h["Content-Length"] = []string{strconv.Itoa(len(a.Body))}
	}
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Body) // whoever left needs no answer
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
