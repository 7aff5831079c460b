package audit

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Receipts asks a simulator's control API (docs/simulator.md) how often it accepted each delivery.
func Receipts(ctx context.Context, control string) (map[[16]byte]int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(control, "/")+"/receipts", nil)
	if err != nil {
		return nil, fmt.Errorf("the simulator's address: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the simulator for its receipts: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the simulator at %s for its receipts: %s", control, resp.Status)
	}
	all := map[[16]byte]int{}
	for lines := json.NewDecoder(resp.Body); ; {
		var line struct {
			ID    string
			Times int
		}
		if err := lines.Decode(&line); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("read the simulator's receipts: %w", err)
		}
		id, err := hex.DecodeString(strings.ReplaceAll(line.ID, "-", ""))
		if err != nil || len(id) != 16 {
			return nil, fmt.Errorf("read the simulator's receipts: %q is not a delivery's id", line.ID)
		}
		all[[16]byte(id)] = line.Times
	}
}
