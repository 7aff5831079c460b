package main

import (
	"io"
	"os"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// bars are progress bars on a terminal, and nothing anywhere else.
type bars struct{ progress *mpb.Progress }

func newBars(w io.Writer) bars {
	if !onTerminal(w) {
		return bars{mpb.New(mpb.WithOutput(nil))}
	}
	return bars{mpb.New(mpb.WithOutput(w), mpb.WithWidth(48))}
}

func onTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// bar is one of them. total may grow.
type bar struct{ bar *mpb.Bar }

func (b bars) add(name string, total int64) bar {
	return bar{b.progress.AddBar(total,
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(
			decor.CountersNoUnit("%d / %d", decor.WCSyncSpace),
			decor.AverageSpeed(0, "  %.0f/s", decor.WCSyncSpace),
		),
	)}
}

// addBytes is a bar that counts bytes.
func (b bars) addBytes(name string, total int64) bar {
	return bar{b.progress.AddBar(total,
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace), decor.AverageETA(decor.ET_STYLE_GO, decor.WCSyncSpace)),
	)}
}

func (b bar) set(done, total int64) {
	b.bar.SetTotal(max(total, 1), false)
	b.bar.SetCurrent(done)
}

// end leaves the bar as it stands.
func (b bar) end() {
	b.bar.SetTotal(-1, true)
	b.bar.Abort(false)
}

// wait draws the last state. Every bar must have ended.
func (b bars) wait() { b.progress.Wait() }
