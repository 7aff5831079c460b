//go:build !race

package encrypt

import "testing"

// TestAllocationsAppend fails when a message costs more than was recorded: all of it is the standard library's own.
func TestAllocationsAppend(t *testing.T) {
	const recorded = 17 // 9 of P-256's two, 4 of parsing the point, 4 of AES and GCM (Go 1.26)
	to := newBrowser(t)
	p256dh, plaintext, dst := to.key.PublicKey().Bytes(), make([]byte, 300), make([]byte, 0, MaxBody)
	got := testing.AllocsPerRun(100, func() {
		if _, err := Append(dst, plaintext, p256dh, to.auth, 256); err != nil {
			t.Fatal(err)
		}
	})
	if got > recorded {
		t.Errorf("%v allocations a message, %d recorded", got, recorded)
	}
}
