package wire

import (
	"bufio"
	"net"
	"sync"
)

// batched is the TCP connection below TLS. crypto/tls makes one system call for each record, and reads little at a time: here
// the records of one write leave in one call, and one read takes what the kernel has.
type batched struct {
	net.Conn
	in *bufio.Reader
	// idle, unless nil, is called when all that came has been read, before more is waited for. TLS may need several reads for
	// one of its own: a record can be one without data, or part of one.
	idle func()

	// mu guards what follows: TLS answers a KeyUpdate from within a Read, and its record must keep its place.
	mu     sync.Mutex
	gather bool
	out    []byte
}

// readSize is how much is asked of the kernel at once: four full records.
const readSize = 64 << 10

func newBatched(c net.Conn) *batched { return &batched{Conn: c, in: bufio.NewReaderSize(c, readSize)} }

func (b *batched) Read(p []byte) (int, error) {
	if b.idle != nil && b.in.Buffered() == 0 {
		b.idle()
	}
	return b.in.Read(p)
}

// Write is called by TLS with its own lock on the order of records held.
func (b *batched) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.gather {
		return b.Conn.Write(p)
	}
	b.out = append(b.out, p...)
	return len(p), nil
}

// send writes p through TLS, and all that it made of it at once.
func (b *batched) send(through net.Conn, p []byte) error {
	b.hold()
	_, err := through.Write(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gather = false
	if err == nil {
		_, err = b.Conn.Write(b.out)
	}
	b.out = b.out[:0]
	return err
}

func (b *batched) hold() {
	b.mu.Lock()
	b.gather = true
	b.mu.Unlock()
}
