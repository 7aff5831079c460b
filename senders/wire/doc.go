// Package wire is an HTTP/2 client for one kind of work: a great many small POSTs to one authority, whose answers are small
// as well. The types to know are Client, which takes Requests in batches and never blocks, and Result, which its Handler gets
// in batches.
package wire
