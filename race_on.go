//go:build race

package multiproc

// raceDetector tells whether this program was built with the race detector.
const raceDetector = true
