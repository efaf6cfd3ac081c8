package jobs

import (
	"errors"
	"io"
	"os"
)

// spoolMemory is how much a Spool keeps in memory, in bytes.
const spoolMemory = 256 << 10

// A Spool keeps what a job has written: the beginning in memory, the rest in a file that nobody else sees. It travels
// between processes as its bytes. It is written to before it is read, and used by one goroutine at a time.
type Spool struct {
	head []byte
	file *os.File // or nil
	name string   // of the file, where it could not be removed at once
	size int64
}

// Write appends to the spool.
func (s *Spool) Write(p []byte) (int, error) {
	if room := spoolMemory - len(s.head); s.file == nil && len(p) <= room {
		s.head = append(s.head, p...)
		s.size += int64(len(p))
		return len(p), nil
	}
	if s.file == nil {
		f, err := os.CreateTemp("", "multiproc-output-")
		if err != nil {
			return 0, err
		}
		if s.file = f; os.Remove(f.Name()) != nil {
			s.name = f.Name()
		}
	}
	n, err := s.file.Write(p)
	s.size += int64(n)
	return n, err
}

// Len returns how many bytes were written.
func (s *Spool) Len() int64 { return s.size }

// WriteTo writes all of it, and may be called again.
func (s *Spool) WriteTo(w io.Writer) (int64, error) {
	if s.size == 0 {
		return 0, nil
	}
	n, err := w.Write(s.head)
	if err != nil || s.file == nil {
		return int64(n), err
	}
	rest, err := io.Copy(w, io.NewSectionReader(s.file, 0, s.size-int64(len(s.head))))
	return int64(n) + rest, err
}

// Close releases what the spool has.
func (s *Spool) Close() error {
	s.head, s.size = nil, 0
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	if s.name != "" {
		err = errors.Join(err, os.Remove(s.name))
	}
	s.file = nil
	return err
}

// MarshalBinary returns all that was written, and closes the spool.
func (s *Spool) MarshalBinary() ([]byte, error) {
	if s.file == nil {
		return s.head, nil
	}
	defer s.Close()
	all := make([]byte, s.size)
	copy(all, s.head)
	_, err := s.file.ReadAt(all[len(s.head):], 0)
	return all, err
}

// UnmarshalBinary makes a spool of bytes.
func (s *Spool) UnmarshalBinary(data []byte) error {
	*s = Spool{head: append([]byte(nil), data...), size: int64(len(data))}
	return nil
}
