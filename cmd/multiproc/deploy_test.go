package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// A usage is a flag of a subcommand, somewhere in a recipe.
type usage struct{ command, flag string }

var (
	// In a shell, a unit or a text: the command, its subcommand, and what stands on the line.
	onLine = regexp.MustCompile(`(?:multiproc|\$\{?MULTIPROC\}?"?)[ \t]+(agent|server|setup|key (?:new|sign|trust|list))\b([^|;&\x60\n]*)`)
	// In YAML: a list whose first element is the subcommand.
	inFlow  = regexp.MustCompile(`\[(agent|server|setup),([^\]]*)\]`)
	inBlock = regexp.MustCompile(`(?m)^[ \t]*- (agent|server|setup)\n((?:[ \t]*- .*\n)+)`)
	flagged = regexp.MustCompile(`(?:^|[^\w-])--([a-z][a-z-]*)`)
)

// usages finds the flags of this command in a text.
func usages(text string) (found []usage) {
	text = strings.ReplaceAll(text, "\\\n", " ")
	for _, form := range []*regexp.Regexp{onLine, inFlow, inBlock} {
		for _, m := range form.FindAllStringSubmatch(text, -1) {
			for _, f := range flagged.FindAllStringSubmatch(m[2], -1) {
				found = append(found, usage{m[1], f[1]})
			}
		}
	}
	return found
}

func TestUsages(t *testing.T) {
	for text, want := range map[string][]usage{
		"# multiproc agent --nats URL \\\n#  --slots 2 && other --flag":      {{"agent", "nats"}, {"agent", "slots"}},
		`exec "$MULTIPROC" agent ${X:+--creds "$X"}`:                         {{"agent", "creds"}},
		"`multiproc key sign --not-after 30d ./prog`":                        {{"key sign", "not-after"}},
		"command: [setup, \"--nats=a\", --replicas=3]":                       {{"setup", "nats"}, {"setup", "replicas"}},
		"args:\n  - server\n  - --dir=/x\n  - --log # --b\nenv:\n  - --nats": {{"server", "dir"}, {"server", "log"}, {"server", "b"}},
		"docker build --target static; srun --wait=0 multiproc":              nil,
	} {
		if got := usages(text); !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

// recipes returns the texts that tell people how to use this command, by their path.
func recipes(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	read := func(path string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.ToSlash(path)] = string(text)
	}
	read("../../docs/cluster.md")
	err := filepath.WalkDir("../../deploy", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			read(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// TestRecipesUseFlagsThatExist has nobody told to use what this command does not have.
func TestRecipesUseFlagsThatExist(t *testing.T) {
	root := &cobra.Command{Use: "multiproc"}
	root.AddCommand(keyCommand(), agentCommand(), serverCommand(), setupCommand())
	texts := recipes(t)
	for path, text := range texts {
		for _, u := range usages(text) {
			cmd, _, err := root.Find(strings.Fields(u.command))
			if err != nil {
				t.Fatal(err)
			}
			if cmd.Flags().Lookup(u.flag) == nil {
				t.Errorf("%s: multiproc %s has no flag --%s", path, u.command, u.flag)
			}
		}
	}
	for path, least := range map[string]int{
		"docs/cluster.md": 10, "deploy/systemd/multiproc-agent.service": 4, "deploy/systemd/multiproc-server.service": 2,
		"deploy/docker/compose.yaml": 12, "deploy/kubernetes/servers.yaml": 8, "deploy/kubernetes/agents.yaml": 6,
		"deploy/slurm/agents.sbatch": 7, "deploy/slurm/try.sh": 5, "deploy/nats/nats.conf": 4,
	} {
		if n := len(usages(texts["../../"+path])); n < least {
			t.Errorf("%s: %d flags were found, want at least %d: is the file gone, or written in another way?", path, n, least)
		}
	}
}

// TestRecipesWaitLongerThanGrace has what stops an agent not kill it before it has given back what it holds.
func TestRecipesWaitLongerThanGrace(t *testing.T) {
	texts := recipes(t)
	for path, patience := range map[string]string{
		"deploy/systemd/multiproc-agent.service": `(?m)^TimeoutStopSec=(\S+)$`,
		"deploy/docker/compose.yaml":             `stop_grace_period: (\S+) # longer`,
		"deploy/kubernetes/agents.yaml":          `terminationGracePeriodSeconds: (\d+)`,
		"deploy/slurm/agents.sbatch":             `KillWait, (\d+) seconds`,
	} {
		text := texts["../../"+path]
		grace := regexp.MustCompile(`(?:--grace[= ]|MULTIPROC_GRACE:-)(\d+s)`).FindStringSubmatch(text)
		limit := regexp.MustCompile(patience).FindStringSubmatch(text)
		if grace == nil || limit == nil {
			t.Errorf("%s: --grace %v, and until it is killed %v", path, grace, limit)
			continue
		}
		short, err1 := time.ParseDuration(grace[1])
		long, err2 := time.ParseDuration(strings.TrimSuffix(limit[1], "s") + "s")
		if err1 != nil || err2 != nil || long < short+10*time.Second {
			t.Errorf("%s: --grace is %s, and the agent is killed after %s", path, grace[1], limit[1])
		}
	}
}

// TestRecipesNameWhatIsThere has autoscalers ask for what package cluster makes.
func TestRecipesNameWhatIsThere(t *testing.T) {
	text := recipes(t)["../../deploy/kubernetes/keda.yaml"]
	names, err := os.ReadFile("../../cluster/names.go")
	if err != nil {
		t.Fatal(err)
	}
	for asked, made := range map[string]string{"stream: MP_TASKS\n": `"MP_TASKS"`, "consumer: agents-linux-amd64\n": `"agents-" + platform`} {
		if !strings.Contains(text, asked) || !strings.Contains(string(names), made) {
			t.Errorf("keda.yaml is to have %q, and names.go %s", asked, made)
		}
	}
}
