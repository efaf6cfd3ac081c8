package proctest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Faults are what goes wrong on connections, as a text says: rules, with | between them.
//
//	drop 1%         a frame or, on the way out, what one Send sends, is lost
//	delay 2ms 5%    it is late, and what comes behind it too
//	truncate 1%     a part of it arrives, and then the connection breaks
//	corrupt 1%      one of its bits is flipped
//	kill 17         the peer is killed: it does not see frame 17, or has sent it as its last
//	kill 2-40       likewise, at one of these, another for each connection
//
// At the end of a rule, in or out restricts it to what comes from the worker, or goes to it.
// Frames count from 1; without in or out, those of both directions count together.
//
// Results in the short form do not say whose they are. With a frame, those are lost too that
// come before one that does: they would be taken for others', which nobody could notice.
//
// What happens depends on the text, the seed, and the frames; in each direction of each
// connection, which count from 1 as well, on these alone. Faults may be used from several
// goroutines at once.
type Faults struct {
	rules []rule
	seed  uint64

	off      atomic.Bool
	injected atomic.Int64

	mu    sync.Mutex
	conns uint64 // so far
}

// rule is one of the rules of Faults.
type rule struct {
	kind     string
	percent  float64       // of the frames; for all kinds but kill
	delay    time.Duration // of kind delay
	from, to int           // of kind kill
	way      way           // both of them: ""
}

// way is one of the directions of a connection.
type way string

const (
	in  way = "in"
	out way = "out"
)

// ParseFaults reads the text. The error says which rule is wrong, and why.
func ParseFaults(text string, seed uint64) (*Faults, error) {
	f := &Faults{seed: seed}
	for part := range strings.SplitSeq(text, "|") {
		r, err := parseRule(strings.Fields(part))
		if err != nil {
			return nil, fmt.Errorf("fault %q: %w", strings.TrimSpace(part), err)
		}
		f.rules = append(f.rules, r)
	}
	return f, nil
}

func parseRule(words []string) (r rule, err error) {
	if n := len(words); n > 0 && (words[n-1] == string(in) || words[n-1] == string(out)) {
		r.way, words = way(words[n-1]), words[:n-1]
	}
	if len(words) == 0 {
		return r, errors.New("it has no kind: drop, delay, truncate, corrupt or kill")
	}
	r.kind, words = words[0], words[1:]
	want := 1
	switch r.kind {
	case "drop", "truncate", "corrupt", "kill":
	case "delay":
		if want = 2; len(words) == want {
			r.delay, err = time.ParseDuration(words[0])
		}
	default:
		return r, errors.New("there is no such kind, only drop, delay, truncate, corrupt and kill")
	}
	if len(words) != want || err != nil || r.delay < 0 {
		return r, errors.New("want a number behind the kind, or a duration and a number for delay, and then in or out or nothing")
	}
	number := words[want-1]
	if r.kind == "kill" {
		from, to, isRange := strings.Cut(number, "-")
		if !isRange {
			to = from
		}
		var errs [2]error
		r.from, errs[0] = strconv.Atoi(from)
		r.to, errs[1] = strconv.Atoi(to)
		if errs[0] != nil || errs[1] != nil || r.from < 1 || r.to < r.from {
			return r, errors.New("want the number of a frame, or two with a - between them")
		}
		return r, nil
	}
	digits, ok := strings.CutSuffix(number, "%")
	if r.percent, err = strconv.ParseFloat(digits, 64); !ok || err != nil || !(r.percent > 0 && r.percent <= 100) {
		return r, errors.New("want a percentage above 0% and up to 100%")
	}
	return r, nil
}

// String returns what repeats them.
func (f *Faults) String() string {
	var rules []string
	for _, r := range f.rules {
		rules = append(rules, r.String())
	}
	return fmt.Sprintf("ParseFaults(%q, %d)", strings.Join(rules, " | "), f.seed)
}

// String returns the text of the rule.
func (r rule) String() string {
	s := r.kind
	switch {
	case r.kind == "kill" && r.from == r.to:
		s += fmt.Sprintf(" %d", r.from)
	case r.kind == "kill":
		s += fmt.Sprintf(" %d-%d", r.from, r.to)
	case r.kind == "delay":
		s += fmt.Sprintf(" %v %v%%", r.delay, r.percent)
	default:
		s += fmt.Sprintf(" %v%%", r.percent)
	}
	return strings.TrimSpace(s + " " + string(r.way))
}

// Off ends the faults, also on connections that are there: what they have lost stays lost.
func (f *Faults) Off() { f.off.Store(true) }

// Injected returns how often something went wrong so far.
func (f *Faults) Injected() int { return int(f.injected.Load()) }

// Has reports whether one of the rules is of this kind.
func (f *Faults) Has(kind string) bool {
	return slices.ContainsFunc(f.rules, func(r rule) bool { return r.kind == kind })
}

// plan is what goes wrong on one connection.
type plan struct {
	*Faults

	mu    sync.Mutex
	fates map[way]*rand.Rand
	kills []int // for each rule of kind kill: the frame
	seen  map[way]int
}

// connect returns the plan of the next connection.
func (f *Faults) connect() *plan {
	f.mu.Lock()
	f.conns++
	n := f.conns
	f.mu.Unlock()
	p := &plan{Faults: f, kills: make([]int, len(f.rules)), seen: map[way]int{}, fates: map[way]*rand.Rand{
		in:  rand.New(rand.NewPCG(f.seed, 2*n)),
		out: rand.New(rand.NewPCG(f.seed, 2*n+1)),
	}}
	once := rand.New(rand.NewPCG(f.seed, ^n))
	for i, r := range f.rules {
		if r.kind == "kill" {
			p.kills[i] = r.from + once.IntN(r.to-r.from+1)
		}
	}
	return p
}

// fate is what becomes of some bytes on their way.
type fate struct {
	drop  bool
	delay time.Duration
	keep  int // how many of them arrive before the connection breaks; -1: all
	flip  int // which of their bits is flipped; -1: none
}

// decide returns the fate of the next size bytes that go this way.
func (p *plan) decide(to way, size int) fate {
	p.mu.Lock()
	defer p.mu.Unlock()
	what := fate{keep: -1, flip: -1}
	rng := p.fates[to]
	for _, r := range p.rules {
		if r.kind == "kill" || r.way != "" && r.way != to {
			continue
		}
		// As many numbers are drawn whether it happens or not: one rule does not change
		// the fates by another.
		happens, which := rng.Float64()*100 < r.percent, rng.IntN(8*max(size, 1))
		if !happens || p.off.Load() || size == 0 {
			continue
		}
		p.injected.Add(1)
		switch r.kind {
		case "drop":
			what.drop = true
		case "delay":
			what.delay += r.delay
		case "truncate":
			what.keep = which / 8
		case "corrupt":
			what.flip = which
		}
	}
	return what
}

// kills counts a frame that goes this way, and reports whether it is a last one.
func (p *plan) kill(to way) (dies bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[to]++
	for i, r := range p.rules {
		n := p.seen[r.way]
		if r.way == "" {
			n = p.seen[in] + p.seen[out]
		}
		if r.kind == "kill" && (r.way == "" || r.way == to) && n == p.kills[i] && !p.off.Load() {
			p.injected.Add(1)
			dies = true
		}
	}
	return dies
}
