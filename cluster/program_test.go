package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed84f35039/multiproc/internal/wire"
)

func typeOf(v any) reflect.Type { return reflect.TypeOf(v) }

// programOf describes an executable with this content.
func programOf(content []byte) Program {
	sum := sha256.Sum256(content)
	return Program{Hash: hex.EncodeToString(sum[:]), Size: int64(len(content)), GOOS: runtime.GOOS, GOARCH: runtime.GOARCH, Name: "program"}
}

func TestReadProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	want := programOf(content)
	want.Name = filepath.Base(self)
	got, err := ReadProgram(self)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := got.CheckPlatform(runtime.GOOS, runtime.GOARCH); err != nil {
		t.Error(err)
	}
	err = got.CheckPlatform("plan9", "mips")
	var platform *PlatformError
	if !errors.As(err, &platform) || platform.GOOS != "plan9" {
		t.Errorf("on another platform: %v", err)
	}
	wantErr(t, err, "GOOS=plan9 GOARCH=mips go build")
}

func TestReadProgramRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadProgram(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	_, err := ReadProgram(dir)
	wantErr(t, err, "") // a regular file is asked for, where the system opens directories at all
	for content, want := range map[string]string{"": "no executable", "#!/bin/sh\n": "no executable", "\x7fELF": "no executable"} {
		path := filepath.Join(dir, "file")
		if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
		_, err := ReadProgram(path)
		wantErr(t, err, want)
	}
}

func TestPlatform(t *testing.T) {
	elf := func(class, order, abi byte, machine uint16) []byte {
		b := make([]byte, 64)
		copy(b, "\x7fELF")
		b[4], b[5], b[6], b[7] = class, order, 1, abi
		e := binary.ByteOrder(binary.LittleEndian)
		if order == 2 {
			e = binary.BigEndian
		}
		e.PutUint16(b[16:], 2) // executable
		e.PutUint16(b[18:], machine)
		e.PutUint32(b[20:], 1)
		e.PutUint16(b[52:], 64)
		if class == 1 {
			e.PutUint16(b[40:], 52)
		}
		return b
	}
	macho := func(cpu uint32) []byte {
		b := make([]byte, 32)
		binary.LittleEndian.PutUint32(b, 0xfeedfacf)
		binary.LittleEndian.PutUint32(b[4:], cpu)
		binary.LittleEndian.PutUint32(b[12:], 2)
		return b
	}
	pe := func(machine uint16) []byte {
		b := make([]byte, 0x40+4+20)
		copy(b, "MZ")
		b[0x3c] = 0x40
		copy(b[0x40:], "PE\x00\x00")
		binary.LittleEndian.PutUint16(b[0x44:], machine)
		return append(b, make([]byte, 100)...)
	}
	for want, content := range map[string][]byte{
		"linux/amd64":     elf(2, 1, 0, 62),
		"linux/arm64":     elf(2, 1, 0, 183),
		"linux/riscv64":   elf(2, 1, 3, 243),
		"linux/s390x":     elf(2, 2, 0, 22),
		"linux/ppc64":     elf(2, 2, 0, 21),
		"linux/ppc64le":   elf(2, 1, 0, 21),
		"linux/mips64le":  elf(2, 1, 0, 8),
		"linux/mips":      elf(1, 2, 0, 8),
		"linux/386":       elf(1, 1, 0, 3),
		"freebsd/amd64":   elf(2, 1, 9, 62),
		"openbsd/arm64":   elf(2, 1, 12, 183),
		"darwin/arm64":    macho(0x0100000c),
		"darwin/amd64":    macho(0x01000007),
		"windows/amd64":   pe(0x8664),
		"windows/arm64":   pe(0xaa64),
		"unknown machine": elf(2, 1, 0, 9999),
		"unknown system":  elf(2, 1, 77, 62),
	} {
		goos, goarch, err := platform(bytes.NewReader(content))
		if strings.HasPrefix(want, "unknown") {
			wantErr(t, err, "does not have")
		} else if err != nil || goos+"/"+goarch != want {
			t.Errorf("%s/%s, %v; want %s", goos, goarch, err, want)
		}
	}
}

func TestSignAndVerify(t *testing.T) {
	key, other := newKey(t), newKey(t)
	p := programOf([]byte("content"))
	p.Functions = []string{"a", "b"}
	p.NotAfter = time.Date(2030, 1, 2, 3, 4, 5, 6789, time.FixedZone("", 3600))
	s := Sign(p, key)
	want := p
	want.NotAfter = p.NotAfter.Truncate(time.Second).UTC()
	before := want.NotAfter.Add(-time.Hour)

	got, err := Trust{key.Public(): "", other.Public(): ""}.verify(s, before)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := (Trust{key.Public(): ""}).verify(s, want.NotAfter); err != nil {
		t.Errorf("at the last moment: %v", err)
	}
	_, err = Trust{key.Public(): ""}.verify(s, want.NotAfter.Add(time.Nanosecond))
	var expired *ExpiredError
	if !errors.As(err, &expired) || expired.Program.Name != p.Name {
		t.Errorf("after the last moment: %v", err)
	}
	wantErr(t, err, "2030-01-02T02:04:05Z")

	for _, trust := range []Trust{nil, {}, {other.Public(): ""}} {
		_, err = trust.verify(s, before)
		var untrusted *UntrustedError
		if !errors.As(err, &untrusted) || untrusted.Key != key.Public() {
			t.Errorf("trusting %v: %v", trust, err)
		}
		wantErr(t, err, "multiproc key trust "+key.Public().String())
	}
	trust := Trust{key.Public(): "", PublicKey{}: "a mistake"}
	for what, s := range map[string]SignedProgram{
		"nothing": {}, "no key": {Manifest: s.Manifest, Signature: s.Signature}, "no signature": {Manifest: s.Manifest, Key: s.Key},
		"the zero key": Sign(p, PrivateKey{}),
	} {
		if _, err := trust.Verify(s); !errors.Is(err, ErrUnsigned) {
			t.Errorf("%s: %v", what, err)
		}
	}
	p.NotAfter = time.Time{}
	if got, err := trust.Verify(Sign(p, key)); err != nil || !got.NotAfter.IsZero() {
		t.Errorf("without an end: %v, %v", got.NotAfter, err)
	}
	p.NotAfter = time.Unix(0, 0)
	if _, err := trust.Verify(Sign(p, key)); !errors.As(err, &expired) {
		t.Errorf("until 1970: %v", err)
	}
}

// TestWrongSigner has a signature that is good and whose key is another's.
func TestWrongSigner(t *testing.T) {
	key, other := newKey(t), newKey(t)
	s := Sign(programOf([]byte("content")), key)
	s.Key = other.Public()
	if _, err := (Trust{key.Public(): "", other.Public(): ""}).Verify(s); !errors.Is(err, ErrBadSignature) {
		t.Errorf("%v", err)
	}
	// Signed for something else, which happens to have the same bytes.
	s = Sign(programOf([]byte("content")), key)
	s.Signature = key.sign("", s.Manifest)
	if _, err := (Trust{key.Public(): ""}).Verify(s); !errors.Is(err, ErrBadSignature) {
		t.Errorf("%v", err)
	}
}

// TestTampering changes each byte of a signed manifest, of its signature and of its key.
func TestTampering(t *testing.T) {
	key := newKey(t)
	p := programOf([]byte("content"))
	p.Functions, p.NotAfter = []string{"f"}, time.Now().Add(time.Hour)
	s := Sign(p, key)
	trust := Trust{key.Public(): ""}
	if _, err := trust.Verify(s); err != nil {
		t.Fatal(err)
	}
	for _, part := range [][]byte{s.Manifest, s.Signature, s.Key[:]} {
		for i := range part {
			for bit := range 8 {
				part[i] ^= 1 << bit
				if p, err := trust.Verify(s); !errors.Is(err, ErrBadSignature) {
					t.Errorf("byte %d of %d, bit %d: %v, %v", i, len(part), bit, p, err)
				}
				part[i] ^= 1 << bit
			}
		}
	}
	for what, s := range map[string]SignedProgram{
		"a shorter manifest": {s.Manifest[:len(s.Manifest)-1], s.Key, s.Signature}, "a longer manifest": {append(bytes.Clone(s.Manifest), 0), s.Key, s.Signature},
		"a shorter signature": {s.Manifest, s.Key, s.Signature[:63]}, "a longer signature": {s.Manifest, s.Key, append(bytes.Clone(s.Signature), 0)},
		"no manifest": {nil, s.Key, s.Signature},
	} {
		if _, err := trust.Verify(s); !errors.Is(err, ErrBadSignature) {
			t.Errorf("%s: %v", what, err)
		}
	}
	text, err := s.text()
	if err != nil {
		t.Fatal(err)
	}
	for i := range text {
		for _, c := range []byte("A=\n\r ") {
			b := bytes.Clone(text)
			if b[i] = c; bytes.Equal(b, text) {
				continue
			}
			s, err := parseSigned(b)
			if err == nil {
				_, err = trust.Verify(s)
			}
			if err == nil {
				t.Errorf("character %d of the file may be %q", i, c)
			}
		}
	}
}

// TestNonsenseIsRefused has what makes no sense signed by somebody who is trusted.
func TestNonsenseIsRefused(t *testing.T) {
	key := newKey(t)
	trust := Trust{key.Public(): ""}
	good := programOf([]byte("content"))
	for what, change := range map[string]func(*Program){
		"no hash":      func(p *Program) { p.Hash = "" },
		"a path":       func(p *Program) { p.Hash = "../" + p.Hash[3:] },
		"capitals":     func(p *Program) { p.Hash = strings.Repeat("AB", 32) },
		"short hash":   func(p *Program) { p.Hash = p.Hash[2:] },
		"no size":      func(p *Program) { p.Size = 0 },
		"minus":        func(p *Program) { p.Size = -1 },
		"huge":         func(p *Program) { p.Size = 1 << 62 },
		"no system":    func(p *Program) { p.GOOS = "" },
		"a subject":    func(p *Program) { p.GOARCH = "amd64.>" },
		"no name":      func(p *Program) { p.Name = "" },
		"a directory":  func(p *Program) { p.Name = "../x" },
		"a parent":     func(p *Program) { p.Name = ".." },
		"a line break": func(p *Program) { p.Name = "x\ny" },
		"not UTF-8":    func(p *Program) { p.Name = "\xff" },
		"a novel":      func(p *Program) { p.Functions = []string{strings.Repeat("x", maxManifest)} },
	} {
		p := good
		change(&p)
		if p, err := trust.Verify(Sign(p, key)); !errors.Is(err, ErrBadSignature) {
			t.Errorf("%s: %v, %v", what, p, err)
		}
	}
	sign := func(v any) SignedProgram {
		t.Helper()
		m, err := wire.Encode(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		return SignedProgram{m, key.Public(), key.sign(manifestContext, m)}
	}
	m := manifest{manifestVersion, good.Hash, good.Size, good.GOOS, good.GOARCH, good.Name, 0, nil}
	if _, err := trust.Verify(sign(&m)); err != nil {
		t.Error(err)
	}
	more := struct {
		manifest
		Users []string `cbor:"users"`
	}{m, []string{"ann"}}
	later := m
	later.Version++
	for what, s := range map[string]SignedProgram{"another field": sign(&more), "a later version": sign(&later), "text": sign(&good.Name)} {
		if _, err := trust.Verify(s); !errors.Is(err, ErrBadSignature) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestSignatureFile(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "program")
	if _, err := ReadSignature(exe); !errors.Is(err, ErrUnsigned) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	wantErr(t, WriteSignature(exe, SignedProgram{}), "not signed")
	for range 2 { // the second one replaces the first
		s := Sign(programOf([]byte("content")), newKey(t))
		if err := WriteSignature(exe, s); err != nil {
			t.Fatal(err)
		}
		got, err := ReadSignature(exe)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, got); diff != "" {
			t.Error(diff)
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(exe)); err != nil || len(entries) != 1 {
		t.Errorf("the directory has %v, %v", entries, err)
	}
	if err := os.WriteFile(exe+SignatureSuffix, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := ReadSignature(exe)
	wantErr(t, err, "it is no signature")
}

func FuzzSignedProgram(f *testing.F) {
	key := newKey(f)
	p := programOf([]byte("content"))
	p.Functions, p.NotAfter = []string{"f", "g"}, time.Now().Add(24*time.Hour)
	signed := Sign(p, key)
	trust := Trust{key.Public(): ""}
	text, err := signed.text()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, signed.Manifest, signed.Signature)
	f.Add([]byte(signatureHead+"\n\n\n\n"), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, text, manifest, signature []byte) {
		if s, err := parseSigned(text); err == nil {
			if again, err := s.text(); err != nil || !bytes.Equal(again, text) {
				t.Errorf("%q becomes %q, %v", text, again, err)
			}
			if _, err := trust.Verify(s); err == nil && !bytes.Equal(s.Manifest, signed.Manifest) {
				t.Errorf("nobody has signed %x", s.Manifest)
			}
		}
		if p, err := decodeProgram(manifest); err == nil {
			if again, err := p.encode(); err != nil || !bytes.Equal(again, manifest) {
				t.Errorf("%x becomes %x, %v", manifest, again, err)
			}
		}
		if _, err := trust.Verify(SignedProgram{manifest, key.Public(), signature}); err == nil && !bytes.Equal(manifest, signed.Manifest) {
			t.Errorf("nobody has signed %x", manifest)
		}
	})
}
