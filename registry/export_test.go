package registry

// DecodeRow reads a stored record as Scan does.
func DecodeRow(w Wanted, record []byte) (*Row, error) {
	r := newRow(w)
	return r, r.decode(record)
}
