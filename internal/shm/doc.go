// Package shm is memory that processes share: sealed memfds ([Memory]) and rings of
// bytes in them ([Writer], [Reader]). It is the only package that uses unsafe.
//
// Nothing here has a name in a file system: the memory goes when the last process
// that maps it does, however that ends.
//
// What another process wrote is taken to be hostile. Positions are checked before
// they are used, and a ring never reads or writes outside its memory, whatever the
// other side puts there; bytes are copied out before they are looked at.
package shm
