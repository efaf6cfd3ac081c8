package cluster

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/seed84f35039/multiproc/internal/wire"
)

// AgentInfo is what an agent of a cluster says of itself.
type AgentInfo struct {
	Name     string // [AgentConfig].Name
	Host     string
	Platform string // such as "linux-amd64"
	Slots    int    // how many calls it runs at once
	Chunks   int    // messages with calls that it has, of all programs
	Done     uint64 // messages with calls that it has had so far
	Leaving  bool   // it is about to end, and takes no more
	Usable   bool   // it can run this program: it is for the same platform, and speaks the same version of the protocol
}

// Agents returns the agents that are there at the moment, by their names. What they say is up to 3 seconds old, and one that was
// killed is among them for up to 10 seconds.
func (c *Cluster) Agents() []AgentInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]AgentInfo, 0, len(c.present))
	for _, p := range c.present {
		list = append(list, AgentInfo{p.Name, p.Host, p.Platform, p.Slots, p.Held, p.Done, p.Leaving, p.usable()})
	}
	slices.SortFunc(list, func(a, b AgentInfo) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Host, b.Host)) })
	return list
}

// noAgents returns the error of calls that no agent has come for. c.mu is held.
func (c *Cluster) noAgents() error {
	there := map[string]int{}
	for _, p := range c.present {
		kind := p.Platform
		if p.Version != wire.Version {
			kind += fmt.Sprintf(" with version %d of the protocol, and not %d", p.Version, wire.Version)
		}
		there[kind]++
	}
	others := "there is none at all; start one with multiproc agent"
	if len(there) > 0 {
		var list []string
		for _, kind := range slices.Sorted(maps.Keys(there)) {
			list = append(list, fmt.Sprintf("%d for %s", there[kind], kind))
		}
		others = "there are " + strings.Join(list, ", ") + "; build the program for one of them, with GOOS and GOARCH and the same version of multiproc, or start an agent for this one"
	}
	return fmt.Errorf("%w: it is for %s, and of agents %s", ErrNoAgents, here, others)
}

// agentSays notes what an agent says of itself; nil: it is gone.
func (c *Cluster) agentSays(id string, data []byte) {
	var p presence
	there := data != nil && wire.Decode(data, &p) == nil && p.Slots > 0 && p.Slots <= maxSlots && len(p.Platform) <= maxPlatform
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slots -= c.present[id].slots()
	if there {
		c.present[id] = p
		c.slots += p.slots()
	} else {
		delete(c.present, id)
		maps.DeleteFunc(c.refusals, func(r refusal, _ time.Time) bool { return r.agent == id })
	}
	c.poke()
}

// usable reports whether an agent can run this program.
func (p presence) usable() bool { return p.Platform == here && p.Version == wire.Version }

// leaving reports whether there is an agent that takes no more chunks, and is at some that it has. c.mu is held.
func (c *Cluster) leaving() bool {
	for _, p := range c.present {
		if p.Leaving && p.Held > 0 && p.usable() {
			return true
		}
	}
	return false
}

// slots returns how many calls of this program an agent runs at once.
func (p presence) slots() int {
	if p.Leaving || !p.usable() {
		return 0
	}
	return p.Slots
}

// maxSlots is more than an agent has, and maxPlatform more than the name of a platform.
const (
	maxSlots    = 1 << 16
	maxPlatform = 64
)
