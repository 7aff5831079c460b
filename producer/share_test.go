package producer

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// takeAll takes single parts until the app gets no more.
func takeAll(t testing.TB, s *share, app string) (parts []*part) {
	t.Helper()
	for {
		p, err := s.take(t.Context(), app, 1)
		if err != nil {
			return parts
		}
		parts = append(parts, p)
	}
}

func TestAnAppMayHoldAsMuchAsItLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShare(16, time.Second)
		for i, want := range []int{8, 4, 2, 1, 1, 0} {
			if got := len(takeAll(t, s, fmt.Sprint("app-", i))); got != want {
				t.Errorf("the app that came as number %d got %d, want %d", i, got, want)
			}
		}
		if len(s.line) > 0 {
			t.Errorf("%d wait that have left", len(s.line))
		}
	})
}

func TestOneThatHoldsNothingTakesAnyThatIsFree(t *testing.T) {
	s := newShare(64, 0)
	if _, err := s.take(t.Context(), "big", 1000); err != nil {
		t.Fatal("what is more than the whole is never given")
	}
	s = newShare(64, 0)
	s.take(t.Context(), "a", 32)
	if _, err := s.take(t.Context(), "a", 1); err != errBusy {
		t.Errorf("an app has more than half: %v", err)
	}
	if _, err := s.take(t.Context(), "b", 32); err != nil {
		t.Errorf("another app gets nothing of the half that is left: %v", err)
	}
}

func TestWhatBecomesFreeGoesToWhoHoldsLeast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShare(4, time.Minute)
		held := []*part{}
		for _, app := range []string{"a", "a", "b", "c"} {
			p, err := s.take(t.Context(), app, 1)
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, p)
		}
		got := make(chan string, 2)
		for _, app := range []string{"b", "d"} {
			go func() {
				if _, err := s.take(t.Context(), app, 1); err == nil {
					got <- app
				}
			}()
			synctest.Wait()
		}
		held[0].release()
		if app := <-got; app != "d" {
			t.Errorf("%s got it, which has one already, though d has none", app)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if len(got) != 0 || len(s.line) != 0 {
			t.Error("who waited for longer than it may is still there")
		}
	})
}

func TestAPartIsRecalledForAnAppThatHasNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShare(8, 5*time.Second)
		s.turn = 10 * time.Second
		letGo := func(p *part) { context.AfterFunc(p.back, p.release) }
		var a []*part
		for _, app := range []string{"a", "b", "c", "d"} {
			for _, p := range takeAll(t, s, app) {
				letGo(p)
				if app == "a" {
					a = append(a, p)
				}
			}
		}
		if s.taken != 8 || len(a) != 4 {
			t.Fatalf("taken %d, a has %d", s.taken, len(a))
		}
		begun := time.Now()
		p, err := s.take(t.Context(), "e", 1)
		if err != nil || time.Since(begun) > 0 {
			t.Fatalf("e got nothing at once: %v after %v", err, time.Since(begun))
		}
		letGo(p)
		if a[3].back.Err() == nil || a[2].back.Err() != nil {
			t.Error("it was not the newest part of who holds most that was recalled, and it alone")
		}
		// All that have one: the oldest goes once it had its turn, and not before.
		s = newShare(2, 5*time.Second)
		s.turn = 10 * time.Second
		for _, app := range []string{"a", "b"} {
			p, err := s.take(t.Context(), app, 1)
			if err != nil {
				t.Fatal(err)
			}
			letGo(p)
		}
		if _, err := s.take(t.Context(), "c", 1); err != errBusy {
			t.Errorf("an app's only part was recalled before its turn was over: %v", err)
		}
		time.Sleep(s.turn)
		if _, err := s.take(t.Context(), "c", 1); err != nil {
			t.Errorf("an app's only part was not recalled after its turn: %v", err)
		}
		if s.held["a"] != 0 || s.held["b"] != 1 {
			t.Errorf("it was not the oldest: %v", s.held)
		}
	})
}

// TestShareIsFair: whatever apps take and give back, no more than the whole is out, nobody waits for what may be given, and an app
// without any waits only while nothing is left.
func TestShareIsFair(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := newShare(rapid.Int64Range(1, 40).Draw(r, "whole"), 0)
		var out, asked []*part
		ops := map[string]func(*rapid.T){
			"take": func(r *rapid.T) {
				p := &part{
					of: s, app: rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(r, "app"),
					n: min(s.whole, rapid.Int64Range(1, 10).Draw(r, "n")), got: make(chan struct{}),
				}
				if s.queue(p) {
					asked = append(asked, p)
				}
			},
			"release": func(r *rapid.T) {
				if len(out) == 0 {
					r.Skip()
				}
				i := rapid.IntRange(0, len(out)-1).Draw(r, "which")
				out[i].release()
				out = append(out[:i:i], out[i+1:]...)
			},
			"leave": func(r *rapid.T) {
				if len(asked) == 0 {
					r.Skip()
				}
				i := rapid.IntRange(0, len(asked)-1).Draw(r, "which")
				if !s.leave(asked[i]) {
					r.Fatal("who waits is not in line")
				}
				asked = append(asked[:i:i], asked[i+1:]...)
			},
			"": func(r *rapid.T) {
				waiting := []*part{}
				for _, p := range asked {
					select {
					case <-p.got:
						out = append(out, p)
					default:
						waiting = append(waiting, p)
					}
				}
				asked = waiting
				sum := int64(0)
				for _, p := range out {
					sum += p.n
				}
				if sum != s.taken || sum > s.whole {
					r.Fatalf("%d are out of %d, and %d are counted", sum, s.whole, s.taken)
				}
				next := asked
				if i := slices.IndexFunc(asked, func(p *part) bool { return s.held[p.app] == 0 }); i >= 0 {
					next = asked[i : i+1] // the others wait for this one
				}
				for _, p := range next {
					if s.fits(p) {
						r.Fatalf("%s waits for %d, though %d of %d are out and it holds %d", p.app, p.n, sum, s.whole, s.held[p.app])
					}
				}
			},
		}
		r.Repeat(ops)
	})
}

func TestASlowBodyEndsAndOneThatPausesDoesNot(t *testing.T) {
	for name, c := range map[string]struct {
		size  int
		every time.Duration
		slow  bool
	}{
		"a line each 20 s":      {60, 20 * time.Second, true},
		"nothing at all":        {60, time.Hour, true},
		"a line a second":       {leastRate, time.Second, false},
		"much, with long waits": {64 << 10, 50 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, client := net.Pipe()
				defer client.Close()
				done := make(chan struct{})
				go func() {
					defer close(done)
					defer client.Close()
					for begun := time.Now(); time.Since(begun) < 10*time.Minute; {
						time.Sleep(c.every)
						if _, err := client.Write(make([]byte, c.size)); err != nil {
							return
						}
					}
				}()
				begun := time.Now()
				_, err := io.Copy(io.Discard, newPacedBody(t.Context(), server, server.SetReadDeadline, time.Minute))
				took := time.Since(begun)
				server.Close()
				<-done
				if c.slow && (err != errSlow || took > 2*time.Minute) || !c.slow && err != nil {
					t.Errorf("it ended with %v after %v", err, took)
				}
			})
		})
	}
}
