package wire

// Greeting is the body of a Hello frame.
type Greeting struct {
	Version int    `cbor:"1,keyasint"` // of the protocol
	Build   string `cbor:"2,keyasint"` // identifies the executable; see the parent's check
	PID     int    `cbor:"3,keyasint"`
}

// AppendGreeting appends the encoding of g to dst. It does what [Encode] does and spares
// each worker the codec at its start.
func AppendGreeting(dst []byte, g Greeting) []byte {
	const majorMap = 5 << 5
	dst = appendHead(dst, majorMap, 3)
	dst = appendInt(appendInt(dst, 1), int64(g.Version))
	dst = append(appendHead(appendInt(dst, 2), majorText, uint64(len(g.Build))), g.Build...)
	return appendInt(appendInt(dst, 3), int64(g.PID))
}
