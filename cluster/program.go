package cluster

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"debug/macho"
	"debug/pe"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/seed84f35039/multiproc/internal/wire"
)

// Program says what an executable is, and what for it may be used: this is what is signed.
type Program struct {
	Hash   string // SHA-256 of the executable, as 64 lower-case hexadecimal digits
	Size   int64  // of the executable, in bytes
	GOOS   string // the system that it is for, as Go names it
	GOARCH string // the processor that it is for, as Go names it
	Name   string // of the file, without its directory; for people

	// NotAfter is the last moment at which agents begin with a job of it, to the second; what has begun goes on. The zero time
	// means that there is none.
	NotAfter time.Time

	// Functions are those that may be called. None means all that the program has.
	Functions []string
}

// ReadProgram describes an executable: its hash, its size, and the system and the processor that
// it is for, which need not be those of this process. Everything else but its name is left for
// the caller to fill in. It reads the whole file. The error says so if the file is no
// executable, or was written to while it was read.
func ReadProgram(path string) (Program, error) {
	f, err := os.Open(path)
	if err != nil {
		return Program{}, fmt.Errorf("cluster: read a program: %w", err)
	}
	defer f.Close()
	p := Program{Name: filepath.Base(path)}
	if p.Hash, p.Size, err = hashFile(f); err != nil {
		return Program{}, fmt.Errorf("cluster: read a program: %s: %w", path, err)
	}
	if p.GOOS, p.GOARCH, err = platform(f); err != nil {
		return Program{}, fmt.Errorf("cluster: read a program: %s: %w", path, err)
	}
	if err := p.check(); err != nil {
		return Program{}, fmt.Errorf("cluster: read a program: %s: %w", path, err)
	}
	return p, nil
}

// hashFile returns the SHA-256 of a regular file from its beginning, and its size.
func hashFile(f *os.File) (hash string, size int64, err error) {
	before, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	if !before.Mode().IsRegular() {
		return "", 0, errors.New("it is not a regular file")
	}
	h := sha256.New()
	size, err = io.Copy(h, io.NewSectionReader(f, 0, 1<<62))
	if err != nil {
		return "", 0, err
	}
	if size != before.Size() {
		return "", 0, fmt.Errorf("it had %d bytes and then %d: it was written to while it was read", before.Size(), size)
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}

// platform returns what system and processor an executable is for: what the go command noted in it, or
// else what its format tells.
func platform(r io.ReaderAt) (goos, goarch string, err error) {
	if info, err := buildinfo.Read(r); err == nil {
		for _, s := range info.Settings {
			switch s.Key {
			case "GOOS":
				goos = s.Value
			case "GOARCH":
				goarch = s.Value
			}
		}
		if goos != "" && goarch != "" {
			return goos, goarch, nil
		}
	}
	if f, err := elf.NewFile(r); err == nil {
		goos, goarch = elfPlatform(f)
	} else if f, err := macho.NewFile(r); err == nil {
		goos, goarch = "darwin", machoArch[f.Cpu]
	} else if f, err := pe.NewFile(r); err == nil {
		goos, goarch = "windows", peArch[f.Machine]
	} else {
		return "", "", errors.New("it is no executable of one platform (ELF, Mach-O or PE)")
	}
	if goos == "" || goarch == "" {
		return "", "", errors.New("it is an executable for a system or a processor that Go does not have")
	}
	return goos, goarch, nil
}

func elfPlatform(f *elf.File) (goos, goarch string) {
	goos, goarch = elfOS[f.OSABI], elfArch[f.Machine]
	switch little := f.Data == elf.ELFDATA2LSB; f.Machine {
	case elf.EM_PPC64:
		if little {
			goarch = "ppc64le"
		}
	case elf.EM_MIPS:
		goarch = "mips"
		if f.Class == elf.ELFCLASS64 {
			goarch = "mips64"
		}
		if little {
			goarch += "le"
		}
	}
	return goos, goarch
}

var (
	elfOS = map[elf.OSABI]string{
		elf.ELFOSABI_NONE: "linux", elf.ELFOSABI_LINUX: "linux", elf.ELFOSABI_FREEBSD: "freebsd",
		elf.ELFOSABI_NETBSD: "netbsd", elf.ELFOSABI_OPENBSD: "openbsd", elf.ELFOSABI_SOLARIS: "solaris",
	}
	elfArch = map[elf.Machine]string{
		elf.EM_X86_64: "amd64", elf.EM_386: "386", elf.EM_AARCH64: "arm64", elf.EM_ARM: "arm", elf.EM_RISCV: "riscv64",
		elf.EM_S390: "s390x", elf.EM_PPC64: "ppc64", elf.EM_LOONGARCH: "loong64",
	}
	machoArch = map[macho.Cpu]string{macho.CpuAmd64: "amd64", macho.CpuArm64: "arm64", macho.Cpu386: "386", macho.CpuArm: "arm"}
	peArch    = map[uint16]string{
		pe.IMAGE_FILE_MACHINE_AMD64: "amd64", pe.IMAGE_FILE_MACHINE_ARM64: "arm64",
		pe.IMAGE_FILE_MACHINE_I386: "386", pe.IMAGE_FILE_MACHINE_ARMNT: "arm",
	}
)

// CheckPlatform returns a [*PlatformError] unless p is for this system and processor, which an agent takes
// from package runtime.
func (p Program) CheckPlatform(goos, goarch string) error {
	if p.GOOS != goos || p.GOARCH != goarch {
		return &PlatformError{Program: p, GOOS: goos, GOARCH: goarch}
	}
	return nil
}

// maxProgram is how large an executable may be, in bytes.
const maxProgram = 1 << 36

// check returns what is wrong with a description. Where it passes, Hash may be part of a path.
func (p Program) check() error {
	if b, err := hex.DecodeString(p.Hash); err != nil || len(b) != sha256.Size || strings.ToLower(p.Hash) != p.Hash {
		return fmt.Errorf("%q is no SHA-256 in %d lower-case hexadecimal digits", shorten(p.Hash), 2*sha256.Size)
	}
	if p.Size <= 0 || p.Size > maxProgram {
		return fmt.Errorf("%d bytes are no executable, which has 1 to %d", p.Size, int64(maxProgram))
	}
	if !isPlatform(p.GOOS) || !isPlatform(p.GOARCH) {
		return fmt.Errorf("%q and %q are no system and processor", shorten(p.GOOS), shorten(p.GOARCH))
	}
	if !isFileName(p.Name) {
		return fmt.Errorf("%q is no name of a file", shorten(p.Name))
	}
	return nil
}

// isFileName reports whether s is the name of a file without its directory, and can be printed.
func isFileName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= 255 && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return r == '/' || r == '\\' || !unicode.IsPrint(r) })
}

// isPlatform reports whether s may be a GOOS or a GOARCH: they are parts of subjects.
func isPlatform(s string) bool {
	return s != "" && len(s) <= 20 && !strings.ContainsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
}

// manifestContext is what is signed before a manifest, so that its signature is one of nothing else.
const manifestContext = "multiproc program manifest 1\x00"

// manifestVersion changes when a manifest gets a field that an agent must not overlook.
const manifestVersion = 1

// maxManifest is how large a manifest may be, in bytes.
const maxManifest = 1 << 20

// manifest is the form in which a Program is signed: CBOR, in this order. Only what encodes to
// the same bytes again is accepted, so that there is one form of each, and agents
// refuse what has more to it than they know.
type manifest struct {
	Version   int      `cbor:"v"`
	Hash      string   `cbor:"sha256"`
	Size      int64    `cbor:"size"`
	GOOS      string   `cbor:"goos"`
	GOARCH    string   `cbor:"goarch"`
	Name      string   `cbor:"name"`
	NotAfter  int64    `cbor:"not_after,omitempty"` // seconds since 1970; 0: never
	Functions []string `cbor:"functions,omitempty"`
}

func (p Program) encode() ([]byte, error) {
	m := manifest{manifestVersion, p.Hash, p.Size, p.GOOS, p.GOARCH, p.Name, 0, p.Functions}
	if !p.NotAfter.IsZero() {
		// 0 means never, so that 1970 itself becomes a second later.
		if m.NotAfter = p.NotAfter.Unix(); m.NotAfter == 0 {
			m.NotAfter = 1
		}
	}
	return wire.Encode(nil, &m)
}

func decodeProgram(data []byte) (Program, error) {
	if len(data) > maxManifest {
		return Program{}, fmt.Errorf("it has %d bytes, at most %d are allowed", len(data), maxManifest)
	}
	var m manifest
	if err := wire.Decode(data, &m); err != nil {
		return Program{}, err
	}
	if m.Version != manifestVersion {
		return Program{}, fmt.Errorf("it has version %d, and only %d is known here", m.Version, manifestVersion)
	}
	p := Program{Hash: m.Hash, Size: m.Size, GOOS: m.GOOS, GOARCH: m.GOARCH, Name: m.Name, Functions: m.Functions}
	if m.NotAfter != 0 {
		p.NotAfter = time.Unix(m.NotAfter, 0).UTC()
	}
	if err := p.check(); err != nil {
		return Program{}, err
	}
	if again, err := p.encode(); err != nil || !bytes.Equal(again, data) {
		return Program{}, errors.New("it says more than is known here, or says it in another way")
	}
	return p, nil
}

// SignedProgram is a [Program] with the signature of who answers for it. It is what travels; only
// [Trust.Verify] makes a Program of it again.
type SignedProgram struct {
	Manifest  []byte    // what was signed: the encoding of the Program
	Key       PublicKey // of who has signed it; the zero key if nobody has
	Signature []byte    // 64 bytes
}

// Sign signs a program. NotAfter counts to the second. It does not look at the
// program: what makes no sense is refused by [Trust.Verify]. With the zero PrivateKey the
// result is unsigned.
func Sign(p Program, key PrivateKey) SignedProgram {
	m, err := p.encode()
	if err != nil {
		panic(fmt.Sprintf("cluster: encode a manifest: %v", err)) // strings and numbers can always be encoded
	}
	return SignedProgram{Manifest: m, Key: key.Public(), Signature: key.sign(manifestContext, m)}
}

// Verify returns the program if somebody whom t trusts has signed it and it has not expired. Otherwise the error wraps
// [ErrUnsigned] or [ErrBadSignature], or is an [*UntrustedError] or an [*ExpiredError]. It looks
// at nothing but s: whether an executable is the one that was signed is for whoever has it to check.
func (t Trust) Verify(s SignedProgram) (Program, error) { return t.verify(s, time.Now()) }

func (t Trust) verify(s SignedProgram, now time.Time) (Program, error) {
	if s.Key.IsZero() || len(s.Signature) == 0 {
		return Program{}, ErrUnsigned
	}
	// Before anything else: what follows tells of the key and of the program, and should be true.
	if !s.Key.signed(manifestContext, s.Manifest, s.Signature) {
		return Program{}, fmt.Errorf("%w (of %v)", ErrBadSignature, s.Key)
	}
	if _, ok := t[s.Key]; !ok {
		return Program{}, &UntrustedError{Key: s.Key}
	}
	p, err := decodeProgram(s.Manifest)
	if err != nil {
		return Program{}, fmt.Errorf("%w: the manifest that %v has signed is not understood: %w", ErrBadSignature, s.Key, err)
	}
	if !p.NotAfter.IsZero() && now.After(p.NotAfter) {
		return Program{}, &ExpiredError{Program: p}
	}
	return p, nil
}
