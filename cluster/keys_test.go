package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed84f35039/multiproc/internal/wire"
)

func newKey(t testing.TB) PrivateKey {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func wantErr(t testing.TB, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want one with %q", err, text)
	}
}

func TestPublicKeyText(t *testing.T) {
	key := newKey(t).Public()
	text := key.String()
	if !strings.HasPrefix(text, "mpk1") || len(text) != 52 {
		t.Errorf("text %q", text)
	}
	if got, err := ParsePublicKey(text); err != nil || got != key {
		t.Errorf("parsed as %v, %v", got, err)
	}
	for i := range text {
		for _, c := range []byte("aZ0-_= \n\x00") {
			if b := []byte(text); b[i] != c {
				b[i] = c
				if got, err := ParsePublicKey(string(b)); err == nil {
					t.Errorf("%q is taken for %v", b, got)
				}
			}
		}
	}
	for bad, want := range map[string]string{
		"": "does not start with mpk1", "mpk1": "48 letters", text + "A": "48 letters", text[:40]: "48 letters",
		text + "\n": "checksum", "\n" + text: "does not start", encodeKey(publicPrefix, make([]byte, 32)): "all zero",
	} {
		_, err := ParsePublicKey(bad)
		wantErr(t, err, want)
	}
}

func TestPublicKeyTravels(t *testing.T) {
	type note struct{ Some, None PublicKey }
	in := note{Some: newKey(t).Public()}
	if _, err := wire.Check(typeOf(in)); err != nil {
		t.Fatal(err)
	}
	data, err := wire.Encode(nil, &in)
	if err != nil {
		t.Fatal(err)
	}
	var out note
	if err := wire.Decode(data, &out); err != nil || out != in {
		t.Errorf("CBOR: %v, %v", out, err)
	}
	out = note{}
	if data, err = json.Marshal(in); err != nil || !strings.Contains(string(data), in.Some.String()) {
		t.Errorf("JSON %s, %v", data, err)
	}
	if err := json.Unmarshal(data, &out); err != nil || out != in {
		t.Errorf("JSON: %v, %v", out, err)
	}
}

func TestPrivateKeyIsNotPrinted(t *testing.T) {
	key := newKey(t)
	secrets := []string{encodeKey(privatePrefix, key.seed())[10:20], fmt.Sprintf("%x", key.seed())[:10], fmt.Sprint(key.seed())[1:15]}
	holder := struct{ hidden PrivateKey }{key}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{key, &key, holder, []PrivateKey{key}} {
			text := fmt.Sprintf(verb, v)
			for _, secret := range secrets {
				if strings.Contains(text, secret) {
					t.Errorf("%s of a %T tells the key", verb, v)
				}
			}
		}
	}
	_, err := ParsePublicKey(encodeKey(privatePrefix, key.seed()))
	wantErr(t, err, "this is a private key")
	if strings.Contains(err.Error(), secrets[0]) {
		t.Error("the error tells the key")
	}
}

func TestPrivateKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "key")
	key := newKey(t)
	if err := key.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	got, err := ReadKey(path)
	if err != nil || got.Public() != key.Public() {
		t.Errorf("read %v, %v; want %v", got, err, key)
	}
	if err := newKey(t).WriteFile(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second key in the same file: %v", err)
	}
	wantErr(t, PrivateKey{}.WriteFile(path+"2"), "NewKey")
	if got, err := ReadKey(path); err != nil || got.Public() != key.Public() {
		t.Errorf("after that: read %v, %v; want %v", got, err, key)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.TrimSpace(string(text[len(keyFileHead):]))
	for bad, want := range map[string]string{
		"":                                   "0 lines",
		secret + "\n" + secret + "\n":        "2 lines",
		"mps2" + secret[4:]:                  "does not start with mps1",
		secret[:20] + secret[21:]:            "48 letters",
		"mps1" + strings.ToUpper(secret[4:]): "checksum",
		key.Public().String():                "does not start with mps1",
	} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ReadKey(path)
		wantErr(t, err, want)
		if strings.Contains(err.Error(), secret[10:20]) {
			t.Errorf("the error tells the key: %v", err)
		}
	}
	if _, err := ReadKey(path + "3"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	_, err = ReadKey(filepath.Dir(path))
	wantErr(t, err, "not a regular file")
}

func TestPrivateKeyFileOfOthers(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the permissions of files are other ones on Windows, and not checked")
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := newKey(t).WriteFile(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o601, 0o644} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := ReadKey(path)
		wantErr(t, err, "others may read it")
	}
	for _, mode := range []fs.FileMode{0o600, 0o400} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadKey(path); err != nil {
			t.Error(err)
		}
	}
}

func TestTrustFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "trusted_keys")
	if _, err := ReadTrust(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	a, b, c := newKey(t).Public(), newKey(t).Public(), newKey(t).Public()
	add := func(key PublicKey, comment string, want bool) {
		t.Helper()
		if added, err := AddTrust(path, key, comment); err != nil || added != want {
			t.Errorf("added: %t, %v; want %t", added, err, want)
		}
	}
	read := func(want Trust) {
		t.Helper()
		got, err := ReadTrust(path)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	add(a, " Ann's  laptop ", true)
	add(b, "", true)
	add(a, "another comment", false)
	read(Trust{a: "Ann's  laptop", b: ""})

	// What people have written is left alone, also without an end of line.
	own := "  # mine\n\n\t" + a.String() + "\tAnn\r\n" + b.String()
	if err := os.WriteFile(path, []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	add(b, "", false)
	add(c, "C", true)
	read(Trust{a: "Ann", b: "", c: "C"})
	if text, err := os.ReadFile(path); err != nil || string(text) != own+"\n"+c.String()+" C\n" {
		t.Errorf("the file is\n%s, %v", text, err)
	}

	want := Trust{a: "x y", c: ""}
	if err := WriteTrust(path, want); err != nil {
		t.Fatal(err)
	}
	read(want)
	wantErr(t, WriteTrust(path, Trust{a: "x\n" + b.String()}), "line break")
	wantErr(t, WriteTrust(path, Trust{PublicKey{}: ""}), "no key")
	if _, err := AddTrust(path, b, "x\r"+c.String()); err == nil {
		t.Error("a comment with a line break was taken")
	}
	read(want)
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("the directory has %v, %v", entries, err)
	}

	// Every line that is wrong is named.
	if err := os.WriteFile(path, []byte("# x\nmpk1x\n"+a.String()+"\nkey "+b.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := ReadTrust(path)
	wantErr(t, err, "line 2: ")
	wantErr(t, err, "line 4: ")
	if _, err := AddTrust(path, c, ""); err == nil {
		t.Error("a key was added to a file that is wrong")
	}
}

func TestTrustFileOfOthers(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the permissions of files are other ones on Windows, and not checked")
	}
	path := filepath.Join(t.TempDir(), "trusted_keys")
	if err := WriteTrust(path, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	_, err := ReadTrust(path)
	wantErr(t, err, "others may change it")
	_, err = AddTrust(path, newKey(t).Public(), "")
	wantErr(t, err, "others may change it")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadTrust(path); err != nil {
		t.Error(err)
	}
}

// TestFilesOfAnotherUser has files of keys that belong to somebody who is neither root nor this user.
func TestFilesOfAnotherUser(t *testing.T) {
	if runtime.GOOS == "windows" || os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir := t.TempDir()
	keyFile, trustFile, exe := filepath.Join(dir, "key"), filepath.Join(dir, "trusted_keys"), filepath.Join(dir, "exe")
	key := newKey(t)
	signed := SignedProgram{Key: key.Public(), Manifest: []byte("m"), Signature: []byte("s")}
	if err := errors.Join(key.WriteFile(keyFile), WriteTrust(trustFile, nil), WriteSignature(exe, signed)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{keyFile, trustFile, exe + SignatureSuffix} {
		if err := os.Chown(path, 12345, 12345); err != nil {
			t.Fatal(err)
		}
	}
	_, err := ReadKey(keyFile)
	wantErr(t, err, keyFile+" belongs to another user")
	_, err = ReadTrust(trustFile)
	wantErr(t, err, trustFile+" belongs to another user")
	_, err = AddTrust(trustFile, key.Public(), "")
	wantErr(t, err, trustFile+" belongs to another user")
	if _, err := ReadSignature(exe); err != nil { // which says itself whose it is
		t.Error(err)
	}
}

func TestTrustIsAddedToAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trusted_keys")
	want := Trust{}
	var wg sync.WaitGroup
	for i := range 20 {
		key := newKey(t).Public()
		want[key] = fmt.Sprint("key ", i)
		wg.Go(func() {
			if _, err := AddTrust(path, key, fmt.Sprint("key ", i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got, err := ReadTrust(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzParsePublicKey(f *testing.F) {
	f.Add(newKey(f).Public().String())
	f.Add("mpk1AAAA")
	f.Add("mps1" + strings.Repeat("A", 48))
	f.Fuzz(func(t *testing.T, text string) {
		if key, err := ParsePublicKey(text); err == nil && (key.String() != text || key.IsZero()) {
			t.Errorf("%q is taken for %v", text, key)
		}
		if trust, err := parseTrust(text); err == nil {
			for key := range trust {
				if key.IsZero() {
					t.Errorf("%q trusts no key", text)
				}
			}
		}
	})
}
