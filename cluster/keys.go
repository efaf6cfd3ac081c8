package cluster

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// What keys start with when they are written down. The number is that of the form.
const (
	publicPrefix  = "mpk1"
	privatePrefix = "mps1"
)

// checksumSize is how many bytes of a checksum follow those of a key, so that a mistyped
// one is noticed.
const checksumSize = 4

// PublicKey says who may have signed a program, and checks that they did: it is an ed25519 key. It
// is a plain value, which can be compared and be the key of a map. The zero value is no
// key, and nothing is signed by it.
//
// Its text, which also stands for it in JSON and CBOR, is one word of 52 characters that
// starts with mpk1. It is no secret.
type PublicKey [ed25519.PublicKeySize]byte

// ParsePublicKey reads the text of a key, as [PublicKey.String] writes it. The error says
// what is wrong with the text; one that was mistyped or cut short is noticed.
func ParsePublicKey(text string) (PublicKey, error) {
	b, err := decodeKey(publicPrefix, text)
	if err != nil {
		return PublicKey{}, fmt.Errorf("cluster: public key %q: %w", shorten(text), err)
	}
	k := PublicKey(b)
	if k.IsZero() {
		return PublicKey{}, errors.New("cluster: public key: it is all zero, which is no key")
	}
	return k, nil
}

// IsZero reports whether k is the zero value, which is no key.
func (k PublicKey) IsZero() bool { return k == PublicKey{} }

// String returns the text of the key, "no key" for the zero value.
func (k PublicKey) String() string {
	if k.IsZero() {
		return "no key"
	}
	return encodeKey(publicPrefix, k[:])
}

// MarshalText returns the text of the key, nothing for the zero value.
func (k PublicKey) MarshalText() ([]byte, error) {
	if k.IsZero() {
		return nil, nil
	}
	return []byte(k.String()), nil
}

// UnmarshalText reads what MarshalText returns.
func (k *PublicKey) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*k = PublicKey{}
		return nil
	}
	*k, err = ParsePublicKey(string(text))
	return err
}

// PrivateKey signs programs: who has it can have every agent that trusts its public key run
// anything. It is never printed. The zero value is no key; what it signs is unsigned.
//
// Its methods may be called from several goroutines at once.
type PrivateKey struct{ seed func() []byte } // a function, into which fmt cannot look; nil: no key

// NewKey makes a key. It fails only where the system has no random numbers.
func NewKey() (PrivateKey, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := rand.Read(seed); err != nil {
		return PrivateKey{}, fmt.Errorf("cluster: make a key: %w", err)
	}
	return PrivateKey{func() []byte { return seed }}, nil
}

// IsZero reports whether k is the zero value, which is no key.
func (k PrivateKey) IsZero() bool { return k.seed == nil }

// Public returns the key by which others check what k signs, the zero PublicKey if k is
// zero.
func (k PrivateKey) Public() PublicKey {
	if k.seed == nil {
		return PublicKey{}
	}
	return PublicKey(ed25519.NewKeyFromSeed(k.seed()).Public().(ed25519.PublicKey))
}

// String names the key without telling it.
func (k PrivateKey) String() string { return "private key of " + k.Public().String() }

// GoString is as String, so that no verb of fmt tells the key.
func (k PrivateKey) GoString() string { return k.String() }

// sign signs the message in this context. It returns nil if k is zero.
func (k PrivateKey) sign(context string, message []byte) []byte {
	if k.seed == nil {
		return nil
	}
	return ed25519.Sign(ed25519.NewKeyFromSeed(k.seed()), append([]byte(context), message...))
}

// signed reports whether the holder of k has signed the message in this context.
func (k PublicKey) signed(context string, message, signature []byte) bool {
	return !k.IsZero() && ed25519.Verify(k[:], append([]byte(context), message...), signature)
}

const keyFileHead = `# A private key of multiproc. Whoever has it can run programs on all machines that
# trust its public key: keep it to yourself.
`

// WriteFile writes the key into a new file that only its owner can read (mode 0600), and makes
// the directories for it where they are missing (mode 0700). A file that exists is never
// overwritten: the error wraps fs.ErrExist then. After an error there is no file.
func (k PrivateKey) WriteFile(path string) (err error) {
	if k.seed == nil {
		return errors.New("cluster: write a private key: there is none, make one with NewKey")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("cluster: write a private key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cluster: write a private key: it would replace what is there, which cannot be undone: %w", err)
	} else if err != nil {
		return fmt.Errorf("cluster: write a private key: %w", err)
	}
	_, err = f.WriteString(keyFileHead + encodeKey(privatePrefix, k.seed()) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(path)
		return fmt.Errorf("cluster: write a private key: %w", err)
	}
	return nil
}

// ReadKey reads a private key from a file that [PrivateKey.WriteFile] has written. It refuses a file that
// anybody but its owner could read or write, or that belongs to another user than that of this process or root; on Windows
// that is not checked. No error
// tells what is in the file.
func ReadKey(path string) (PrivateKey, error) {
	text, err := readOwn(path, 0o077)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("cluster: read a private key: %w", err)
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			found = append(found, line)
		}
	}
	if len(found) != 1 {
		return PrivateKey{}, fmt.Errorf("cluster: read a private key: %s has %d lines besides comments, want one that starts with %s", path, len(found), privatePrefix)
	}
	seed, err := decodeKey(privatePrefix, found[0])
	if err != nil {
		return PrivateKey{}, fmt.Errorf("cluster: read a private key: %s: %w", path, err)
	}
	return PrivateKey{func() []byte { return seed[:] }}, nil
}

// maxFile is how large a file of keys or with a signature may be, in bytes. None of them comes
// near; more is not read.
const maxFile = 4 << 20

// readOwn reads a regular file that others have none of these permissions on. If some are forbidden, it also has to
// belong to root or the user of this process: who may write to its directory can put no file of their own in its place.
func readOwn(path string, forbidden fs.FileMode) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("%s has %d bytes, which is more than any such file has", path, info.Size())
	case forbidden != 0 && ownedByOther(info):
		return nil, fmt.Errorf("%s belongs to another user, who could change it: make one of your own, or chown it if you know what is in it", path)
	case runtime.GOOS != "windows" && info.Mode().Perm()&forbidden != 0:
		what, fix := "read", "chmod 600"
		if forbidden&0o044 == 0 {
			what, fix = "change", "chmod go-w"
		}
		return nil, fmt.Errorf("%s: others may %s it (mode %#o): %s it, and do without it if that may have happened", path, what, info.Mode().Perm(), fix)
	}
	text := make([]byte, info.Size())
	n, err := f.ReadAt(text, 0)
	if int64(n) == info.Size() {
		err = nil
	}
	return text[:n], err
}

// encodeKey returns the text of a key: one word.
func encodeKey(prefix string, key []byte) string {
	return prefix + base64.RawURLEncoding.EncodeToString(append(bytes.Clone(key), checksum(prefix, key)...))
}

// decodeKey reads the text of a key. It has no error that tells what text says.
func decodeKey(prefix, text string) (key [32]byte, err error) {
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok {
		if prefix == publicPrefix && strings.HasPrefix(text, privatePrefix) {
			return key, errors.New("this is a private key; want the public one that belongs to it, and do not show this to anybody")
		}
		return key, fmt.Errorf("it does not start with %s", prefix)
	}
	b, err := base64.RawURLEncoding.DecodeString(rest)
	if err != nil || len(b) != len(key)+checksumSize {
		return key, fmt.Errorf("it is not %s and %d letters, digits, - or _ after that", prefix, base64.RawURLEncoding.EncodedLen(len(key)+checksumSize))
	}
	// The second condition is for what the decoder overlooks, such as ends of lines.
	if !bytes.Equal(checksum(prefix, b[:len(key)]), b[len(key):]) || encodeKey(prefix, b[:len(key)]) != text {
		return key, errors.New("its checksum is wrong: a character was changed on the way")
	}
	return [32]byte(b), nil
}

func checksum(prefix string, key []byte) []byte {
	sum := sha256.Sum256(append([]byte(prefix), key...))
	return sum[:checksumSize]
}

// shorten makes text short enough for an error. What may be a private key it leaves out.
func shorten(text string) string {
	if strings.HasPrefix(text, privatePrefix) {
		return privatePrefix + "…"
	}
	if len(text) > 80 {
		return text[:80] + "…"
	}
	return text
}
