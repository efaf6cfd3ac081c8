// Package handover moves memory that processes share beside the calls that mention it,
// without copying it.
//
// What a program has is a [Handle]; package shared dresses it up. The encoding of a value
// that holds handles only names the memory, by its inode. The descriptors go beside the
// frames: the sender collects them in a [Parcel] while it encodes, and the receiver binds
// the handles in what it has decoded to the descriptors of the [Arrival] that belongs to
// the same frame, and to no others. So a process gets at memory only by being handed a
// descriptor of it: there is nothing to guess.
//
// A process maps memory once, however many handles it has on it and however often it
// gets its descriptor: the inode tells that it is the same.
//
// # Format
//
// Memory is encoded as a CBOR array of two unsigned numbers: the inode of its memfd and
// its size in bytes, which may be less than that of the memfd. No memory is an empty
// array. The memfd has the seals F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_SEAL. A message
// that a Handover frame announces (see internal/wire) is a byte with at most 253
// descriptors as SCM_RIGHTS, on a socket of the kind SOCK_SEQPACKET, which a worker has
// as its descriptor 5 if the variable MULTIPROC_FILES is 3.
//
// # Concurrency
//
// The functions on handles may be called from several goroutines at once. A Parcel
// belongs to one goroutine at a time; several may bind from one Arrival.
package handover
