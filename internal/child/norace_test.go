//go:build linux && !race

package child

const raceEnabled = false
