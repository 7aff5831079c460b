package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry/belfry/producer"
)

// bulkCommand streams NDJSON to the API and reads an answer for each line. Refused lines are shown, the others go through.
func bulkCommand(c *client, use, short, path string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Long: short + `; "-" reads standard input. docs/api.md says what a line holds.

Refused lines are shown with the field at fault, and the others go through. The exit status is then 1.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, size, err := openInput(cmd, args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			b := bulk{cmd: cmd, asJSON: asJSON}
			err = b.stream(c, path, in, size)
			if e := b.summary(); err == nil {
				err = e
			}
			return err
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

type bulk struct {
	cmd      *cobra.Command
	asJSON   bool
	accepted int
	refused  int
}

func (b *bulk) stream(c *client, path string, in io.Reader, size int64) error {
	// The upload ends with the answers, however they end.
	ctx, cancel := context.WithCancel(b.cmd.Context())
	defer cancel()
	counted := &countingReader{r: in}
	resp, err := c.request(ctx, http.MethodPost, path, http.Header{"Content-Type": {"application/x-ndjson"}}, counted)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	bars := newBars(b.cmd.ErrOrStderr())
	bar := bars.addBytes("sending", size)
	defer bars.wait()
	defer bar.end()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	drawn := time.Now()
	for lines.Scan() {
		if err := b.answer(lines.Bytes()); err != nil {
			return err
		}
		if time.Since(drawn) > 100*time.Millisecond {
			drawn = time.Now()
			bar.set(counted.n.Load(), max(size, counted.n.Load()))
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the connection broke after %d answers; what was answered is in, send the rest again: %w", b.accepted+b.refused, err)
	}
	return nil
}

func (b *bulk) answer(line []byte) error {
	var a producer.LineAnswer
	if err := json.Unmarshal(line, &a); err != nil {
		return fmt.Errorf("read the API's answer: %w", err)
	}
	if a.Status == "accepted" {
		b.accepted++
		return nil
	}
	b.refused++
	if b.asJSON {
		return show(b.cmd, a, true)
	}
	for _, f := range a.Errors {
		if _, err := fmt.Fprintf(b.cmd.ErrOrStderr(), "line %d %s: %s\n", a.Line, a.Status, faultText(f)); err != nil {
			return err
		}
	}
	return nil
}

// summary fails the command when a line was not accepted.
func (b *bulk) summary() error {
	if b.asJSON {
		if err := show(b.cmd, map[string]int{"accepted": b.accepted, "refused": b.refused}, true); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(b.cmd.OutOrStdout(), "%d accepted, %d refused\n", b.accepted, b.refused)
	}
	if b.refused > 0 {
		return errSaid
	}
	return nil
}

type countingReader struct {
	r io.Reader
	n atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}
