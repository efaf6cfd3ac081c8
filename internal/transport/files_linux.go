package transport

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxFiles is how many descriptors the kernel takes at a time (SCM_MAX_FD).
const maxFiles = 253

// AddFiles gives a new connection, of [New], a way for files: a socket that keeps
// messages apart. Nobody waits for it, so that it wakes nobody. Where the system has no
// memory to be shared, the connection stays as it is.
func AddFiles(conn Conn, theirs []*os.File) (Conn, []*os.File, error) {
	if len(theirs) != 2 {
		return conn, theirs, nil
	}
	a, b, err := pairOf(unix.SOCK_SEQPACKET)
	if err != nil {
		return conn, theirs, err
	}
	return withFiles{conn, socketFiles{a}}, append(theirs, b), nil
}

// openFiles returns conn with the way for files that descriptor fd is.
func openFiles(conn Conn, fd uintptr) (Conn, error) {
	kind, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_SEQPACKET {
		return nil, fmt.Errorf("descriptor %d is not a socket for files", fd)
	}
	unix.CloseOnExec(int(fd))
	return withFiles{conn, socketFiles{os.NewFile(fd, "multiproc files")}}, nil
}

func pairOf(kind int) (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "multiproc files"), os.NewFile(uintptr(fds[1]), "multiproc files"), nil
}

// socketFiles sends files through a socket of the kind SOCK_SEQPACKET.
type socketFiles struct{ sock *os.File }

func (s socketFiles) Send(files []*os.File) error {
	if len(files) > maxFiles {
		return fmt.Errorf("%d descriptors at a time are more than %d", len(files), maxFiles)
	}
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	err := s.control(func(fd int) error {
		return unix.Sendmsg(fd, []byte{0}, unix.UnixRights(fds...), nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	})
	runtime.KeepAlive(files)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return errors.New("the peer does not take the descriptors that it was sent")
	case errors.Is(err, unix.ETOOMANYREFS):
		return errors.New("too many descriptors are on their way between processes of this user (RLIMIT_NOFILE)")
	}
	return os.NewSyscallError("sendmsg", err)
}

func (s socketFiles) Take() ([]*os.File, error) {
	var oob [64 + 4*maxFiles]byte
	var size, flags int
	err := s.control(func(fd int) (err error) {
		var data [1]byte
		_, size, flags, _, err = unix.Recvmsg(fd, data[:], oob[:], unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if errors.Is(err, unix.EAGAIN) {
		return nil, errNoFiles
	} else if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:size])
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	var files []*os.File
	for _, m := range messages {
		fds, _ := unix.ParseUnixRights(&m) // an error says that it is of another kind
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "from another process"))
		}
	}
	switch {
	case flags&unix.MSG_CTRUNC != 0:
		err = fmt.Errorf("not all descriptors could be taken over: %w", syscall.EMFILE)
	case len(files) == 0: // also at the end of the stream
		err = errNoFiles
	}
	return files, err
}

// control calls a system call until no signal interrupts it, with the descriptor kept
// open meanwhile.
func (s socketFiles) control(call func(fd int) error) (err error) {
	raw, err := s.sock.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) {
		for err = unix.EINTR; err == unix.EINTR; {
			err = call(int(fd))
		}
	}); e != nil {
		return e
	}
	return err
}

func (s socketFiles) Close() error { return s.sock.Close() }

// duplicate returns another descriptor of the same file.
func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	runtime.KeepAlive(f)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
