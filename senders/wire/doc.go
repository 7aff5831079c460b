// Package wire is an HTTP/2 client for one kind of work: a great many small POSTs to one authority, whose answers are small
// as well. The types to know are Client, which takes Requests in batches and never blocks, and Result, which its Handler gets
// in batches.
//
// A client for everything, such as net/http's, gives each request a goroutine or two, entries in maps, locks to pass and
// writes of its own: 60 microseconds and more of CPU for a push, where the frames themselves take less than one. Here a
// request costs what its bytes cost, and all else is shared by many:
//
//   - Requests wait in one queue of the client. A connection's writer takes as many as it has streams for, encodes them into
//     one buffer, and writes that in one piece: full TLS records, one system call.
//   - Fields that requests share are a byte or two each in the header block, and those bytes are kept rather than searched
//     for again (block).
//   - A stream is a slot in a ring, found from its id by arithmetic (streams); no stream has a goroutine or a timer.
//     Deadlines are looked at 40 times a second, all together (Client.watch).
//   - A connection's reader takes what the kernel has, and hands over all the results in it at once. Their memory goes back
//     to the connection when the handler returns.
//
// x/net's Framer and hpack read and write frames and header blocks; what the frames mean is RFC 9113, and as strict as it
// asks for. What is certain is made use of: a request above a GOAWAY's last stream goes out again by itself, and only one
// whose HEADERS began to leave is Sent. What is not certain is said by an error.
//
// A connection has two goroutines, the reader that owns it and the writer; a client has one, and one for a dial under way.
// Close waits for all. Locks are taken in the order conn.mu, Client.mu, and no handler is called with either.
package wire
