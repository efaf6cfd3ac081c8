package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Trust is whose programs may run: public keys, each with a comment for people, which may be empty. The zero value
// trusts nobody. It is a map: several goroutines may read it while nobody writes to it.
type Trust map[PublicKey]string

// DefaultTrustFile returns the path of the file of trusted keys that is used where no
// other is named: multiproc/trusted_keys in os.UserConfigDir. It fails where the
// environment does not say where that is.
func DefaultTrustFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("cluster: where trusted keys are kept: %w", err)
	}
	return filepath.Join(dir, "multiproc", "trusted_keys"), nil
}

// ReadTrust reads a file with one public key in each line, and after a space what
// the comment says. Empty lines and lines that start with # count for nothing. The
// error names every line that is wrong, and wraps fs.ErrNotExist if there is no file. A file
// that others than its owner could change, or that belongs to another user than that of this process or root, is refused; on
// Windows that is not checked.
func ReadTrust(path string) (Trust, error) {
	text, err := readOwn(path, 0o022)
	if err != nil {
		return nil, fmt.Errorf("cluster: read trusted keys: %w", err)
	}
	t, err := parseTrust(string(text))
	if err != nil {
		return nil, fmt.Errorf("cluster: read trusted keys: %s: %w", path, err)
	}
	return t, nil
}

func parseTrust(text string) (Trust, error) {
	t := Trust{}
	var errs []error
	number := 0
	for line := range strings.Lines(text) {
		number++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		word, comment := line, ""
		if i := strings.IndexAny(line, " \t"); i >= 0 {
			word, comment = line[:i], strings.TrimSpace(line[i:])
		}
		key, err := ParsePublicKey(word)
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", number, err))
			continue
		}
		t[key] = comment
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return t, nil
}

const trustFileHead = "# Public keys, one a line. Programs that one of them has signed may run on this machine.\n"

// WriteTrust writes a file that [ReadTrust] reads, sorted by key. It replaces what there was at once or
// not at all, and makes the directories for it where they are missing (mode 0700). Comments
// must not have line breaks.
func WriteTrust(path string, t Trust) error {
	var b strings.Builder
	b.WriteString(trustFileHead)
	for _, key := range slices.SortedFunc(maps.Keys(t), func(a, b PublicKey) int { return strings.Compare(a.String(), b.String()) }) {
		line, err := trustLine(key, t[key])
		if err != nil {
			return fmt.Errorf("cluster: write trusted keys: %w", err)
		}
		b.WriteString(line)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("cluster: write trusted keys: %w", err)
	}
	if err := replaceFile(path, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("cluster: write trusted keys: %w", err)
	}
	return nil
}

// AddTrust adds a key to a file of trusted keys, which it makes if there is none, and reports whether it was not there
// before; if it was, the file stays as it is. It adds one line and touches no other, so that several processes may add to a file at
// once. A file that [ReadTrust] refuses is not added to.
func AddTrust(path string, key PublicKey, comment string) (added bool, err error) {
	head := ""
	text, err := readOwn(path, 0o022)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		head = trustFileHead
	case err != nil:
		return false, fmt.Errorf("cluster: add a trusted key: %w", err)
	case len(text) > 0 && text[len(text)-1] != '\n':
		head = "\n"
	}
	t, err := parseTrust(string(text))
	if err != nil {
		return false, fmt.Errorf("cluster: add a trusted key: %s: %w", path, err)
	}
	if _, there := t[key]; there {
		return false, nil
	}
	line, err := trustLine(key, comment)
	if err != nil {
		return false, fmt.Errorf("cluster: add a trusted key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return false, fmt.Errorf("cluster: add a trusted key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return false, fmt.Errorf("cluster: add a trusted key: %w", err)
	}
	_, err = f.WriteString(head + line)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return false, fmt.Errorf("cluster: add a trusted key: %w", err)
	}
	return true, nil
}

func trustLine(key PublicKey, comment string) (string, error) {
	if key.IsZero() {
		return "", errors.New("the zero PublicKey is no key")
	}
	if strings.ContainsAny(comment, "\r\n") {
		return "", fmt.Errorf("the comment %q has a line break", shorten(comment))
	}
	return strings.TrimRight(key.String()+" "+strings.TrimSpace(comment), " ") + "\n", nil
}

// replaceFile writes a file, at once or not at all: another one is written beside it and takes its
// place.
func replaceFile(path string, content []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
