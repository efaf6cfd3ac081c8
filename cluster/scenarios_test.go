package cluster

import "time"

// scenarios are what TestSimulation runs.
var scenarios = []*scenario{
	{name: "short calls", mean: 3 * time.Millisecond, sigma: 0.5, idle: time.Second},
	{name: "steady", mean: time.Second, sigma: 0.2, idle: time.Second, busy: 0.9},
	{name: "stragglers", mean: time.Second, sigma: 1, slow: 0.01, idle: time.Second},
	{name: "deaths", mean: time.Second, sigma: 0.5, fault: (*simulation).deaths, repeats: 0.1},
	{name: "partitions", mean: time.Second, sigma: 0.5, fault: (*simulation).partitions, repeats: 0.5},
	{name: "everything lost", mean: time.Second, sigma: 0.5, fault: (*simulation).loseAll, repeats: 0.2},
	{name: "server restarts", mean: time.Second, sigma: 0.5, fault: (*simulation).restarts, repeats: 0.5},
	{name: "poison", mean: time.Second, sigma: 0.5, poison: 3, fault: func(*simulation) {}, repeats: 0.1},
	{name: "cancellation", mean: time.Second, sigma: 0.5, cancel: true, fault: (*simulation).deafen},
	{name: "a submitter vanishes", mean: time.Second, sigma: 0.5, clones: true},
	{name: "all at once", mean: time.Second, sigma: 1, slow: 0.01, poison: 1, fault: (*simulation).everything, repeats: 1, blamed: 1e-5, rare: true},
}

// deaths has an agent vanish now and then, for which another comes.
func (s *simulation) deaths() {
	n := len(s.agents)
	for s.wait(100 * time.Second / time.Duration(n)) { // each lives for 100 seconds
		if x := s.pick(); x != nil {
			s.going.Go(func() { s.lose(x) }) // ends with the agent
		}
	}
}

// partitions cuts off a tenth of the agents, and sometimes the submitter, again and again.
func (s *simulation) partitions() {
	for s.wait(10 * time.Second) {
		length := time.Duration(5+115*s.float()*s.float()) * time.Second
		part := 0.1
		if s.float() < 0.3 {
			part = 0
			s.cutSubmitter(length / 3)
		}
		s.mu.Lock()
		for _, x := range s.agents {
			if s.rng.Float64() < part {
				x.c.partition(length)
			}
		}
		s.mu.Unlock()
	}
}

// cutSubmitter cuts off all connections that are not those of agents.
func (s *simulation) cutSubmitter(length time.Duration) {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	for c := range s.e.conns {
		if c.control == nil {
			c.sever(length)
		}
	}
}

// loseAll has the engine lose all that it has, once.
func (s *simulation) loseAll() {
	sleep(s.faults, 10*time.Second)
	s.e.restart(2*time.Second, true)
}

// restarts has the server restart now and then.
func (s *simulation) restarts() { s.restartEvery(15 * time.Second) }

func (s *simulation) restartEvery(mean time.Duration) {
	for s.wait(mean) {
		s.e.restart(time.Second, false)
	}
}

// deafen has agents miss every second control message.
func (s *simulation) deafen() {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	s.e.deafness = 0.5
}

func (s *simulation) everything() {
	s.deafen()
	s.going.Go(s.deaths) // all end with the calls
	s.going.Go(s.partitions)
	s.going.Go(func() { s.restartEvery(2 * time.Minute) }) // a call is poison that has ended four agents without one in between
	s.loseAll()
}
