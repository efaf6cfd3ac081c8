package cluster

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// SignatureSuffix is what the name of an executable is followed by in that of the file with its
// signature.
const SignatureSuffix = ".mpsig"

// signatureHead is the first line of such a file. Three follow: the key, the manifest and the
// signature.
const signatureHead = "multiproc signature 1"

// maxSignature is more than the text of any signed manifest has, in bytes.
const maxSignature = 2 * maxManifest

// WriteSignature writes the signature of an executable into a file beside it, which has its name and
// [SignatureSuffix]. It replaces what there was at once or not at all.
func WriteSignature(executable string, s SignedProgram) error {
	text, err := s.text()
	if err == nil {
		err = replaceFile(executable+SignatureSuffix, text, 0o644)
	}
	if err != nil {
		return fmt.Errorf("cluster: write the signature of %s: %w", executable, err)
	}
	return nil
}

// ReadSignature reads the file that [WriteSignature] writes. If there is none the error wraps [ErrUnsigned]. It does
// not check the signature: that is for [Trust.Verify].
func ReadSignature(executable string) (SignedProgram, error) {
	text, err := readOwn(executable+SignatureSuffix, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return SignedProgram{}, fmt.Errorf("%w: %w", ErrUnsigned, err)
	}
	var s SignedProgram
	if err == nil {
		s, err = parseSigned(text)
	}
	if err != nil {
		return SignedProgram{}, fmt.Errorf("cluster: read the signature of %s: %w", executable, err)
	}
	return s, nil
}

// text returns the form of s that is for files.
func (s SignedProgram) text() ([]byte, error) {
	if s.Key.IsZero() || len(s.Signature) == 0 || len(s.Manifest) == 0 {
		return nil, ErrUnsigned
	}
	to64 := base64.StdEncoding.EncodeToString
	return []byte(strings.Join([]string{signatureHead, s.Key.String(), to64(s.Manifest), to64(s.Signature), ""}, "\n")), nil
}

// parseSigned reads what text returns, and nothing else.
func parseSigned(text []byte) (s SignedProgram, err error) {
	if len(text) > maxSignature {
		return s, fmt.Errorf("it has %d bytes, at most %d are allowed", len(text), maxSignature)
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) != 5 || lines[0] != signatureHead || lines[4] != "" {
		return s, fmt.Errorf("it is no signature: want the line %q and three more", signatureHead)
	}
	if s.Key, err = ParsePublicKey(lines[1]); err != nil {
		return SignedProgram{}, err
	}
	strict := base64.StdEncoding.Strict()
	if s.Manifest, err = strict.DecodeString(lines[2]); err != nil {
		return SignedProgram{}, fmt.Errorf("the manifest: %w", err)
	}
	if s.Signature, err = strict.DecodeString(lines[3]); err != nil {
		return SignedProgram{}, fmt.Errorf("the signature: %w", err)
	}
	if again, err := s.text(); err != nil || string(again) != string(text) {
		return SignedProgram{}, errors.New("it is written in another way than signatures are")
	}
	return s, nil
}
