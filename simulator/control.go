package simulator

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"strconv"
	"time"
)

// startControl serves the control API: plain HTTP with JSON, for whoever drives the simulator from another process.
//
//	GET    /info                addresses and the CA certificate
//	GET    /faults              the faults in force, by name, with how often each has struck
//	PUT    /faults/{name}       puts a Fault in force
//	DELETE /faults/{name}       lifts it
//	DELETE /faults              lifts all
//	GET    /devices/{app}       a Device a line; with ?id=… only those asked for
//	GET    /receipts/summary    the Summary
//	GET    /receipts            {"id":…,"times":…} a line; with ?id=… only those asked for, also if never received
//	POST   /receipts/reset      forgets them
func (s *Simulator) startControl() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /info", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, map[string]any{"addresses": s.Addresses(), "ca": string(s.CA())})
	})
	mux.HandleFunc("GET /faults", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Faults()) })
	mux.HandleFunc("PUT /faults/{name}", s.putFault)
	mux.HandleFunc("DELETE /faults/{name}", func(w http.ResponseWriter, r *http.Request) {
		if !s.ClearFault(r.PathValue("name")) {
			complain(w, http.StatusNotFound, errors.New("no fault of that name is in force"))
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("DELETE /faults", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearFaults()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /devices/{app}", s.getDevices)
	mux.HandleFunc("GET /receipts/summary", func(w http.ResponseWriter, _ *http.Request) {
		sum, err := s.Summary()
		if err != nil {
			complain(w, http.StatusInternalServerError, err)
			return
		}
		reply(w, sum)
	})
	mux.HandleFunc("GET /receipts", s.getReceipts)
	mux.HandleFunc("POST /receipts/reset", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.ResetReceipts(); err != nil {
			complain(w, http.StatusInternalServerError, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	s.control = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !s.enter() {
				panic(http.ErrAbortHandler)
			}
			defer s.leave()
			mux.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	s.done.Go(func() {
		if err := s.control.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.fail(fmt.Errorf("simulator: control: %w", err))
		}
	})
}

// maxFault is room for a fault with some ten thousand targets.
const maxFault = 4 << 20

func (s *Simulator) putFault(w http.ResponseWriter, r *http.Request) {
	var f Fault
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxFault))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		complain(w, http.StatusBadRequest, fmt.Errorf("fault: %w", err))
		return
	}
	if err := s.SetFault(r.PathValue("name"), f); err != nil {
		complain(w, http.StatusBadRequest, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Simulator) getDevices(w http.ResponseWriter, r *http.Request) {
	app := r.PathValue("app")
	if _, err := s.App(app); err != nil {
		complain(w, http.StatusNotFound, err)
		return
	}
	var some []Device
	asked := r.URL.Query()["id"]
	for _, id := range asked {
		d, err := s.Device(app, id)
		if err != nil {
			complain(w, http.StatusBadRequest, err)
			return
		}
		some = append(some, d)
	}
	lines(w, func(out *bufio.Writer) error {
		enc := json.NewEncoder(out)
		if len(asked) == 0 {
			return s.EachDevice(app, func(d Device) error { return enc.Encode(d) })
		}
		for _, d := range some {
			if err := enc.Encode(d); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Simulator) getReceipts(w http.ResponseWriter, r *http.Request) {
	asked := r.URL.Query()["id"]
	ids := make([]ID, len(asked))
	for i, text := range asked {
		var ok bool
		if ids[i], ok = ParseID(text); !ok {
			complain(w, http.StatusBadRequest, fmt.Errorf("id %q is not a UUID", text))
			return
		}
	}
	lines(w, func(out *bufio.Writer) error {
		var line []byte
		write := func(id ID, times int) error {
			line = id.append(append(line[:0], `{"id":"`...))
			line = strconv.AppendInt(append(line, `","times":`...), int64(times), 10)
			_, err := out.Write(append(line, '}', '\n'))
			return err
		}
		if len(asked) == 0 {
			return s.EachReceipt(write)
		}
		for _, id := range ids {
			if err := write(id, s.Received(id)); err != nil {
				return err
			}
		}
		return nil
	})
}

// lines answers with what write writes, whole or not at all.
func lines(w http.ResponseWriter, write func(*bufio.Writer) error) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := bufio.NewWriterSize(w, 1<<16)
	if err := errors.Join(write(out), out.Flush()); err != nil {
		panic(http.ErrAbortHandler) // the reader left, or must not take this for the whole
	}
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // maps of strings and numbers; whoever left needs no answer
}

func complain(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}) // as above
}
