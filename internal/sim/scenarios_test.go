package sim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// TestScenarios tells the stories of test/scenarios: one in each file's sections. SWARM_SIM_NODES=50 tells
// them of so many machines in racks, with SWARM_SIM_PODS pods on each (see script).
func TestScenarios(t *testing.T) {
	size := scaleOf(t)
	files, err := filepath.Glob("../../test/scenarios/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			for i, story := range stories(t, file) {
				t.Run(story.Name, func(t *testing.T) {
					if size.machines > 0 { // a file of them takes long
						t.Parallel()
					}
					defer size.turn()()
					simulate(t, uint64(i), func(c *cluster) { newScript(c, size).perform(string(story.Data)) })
				})
			}
		})
	}
}

// TestFiftyNodes tells the most telling of them at the size that is promised, every time.
func TestFiftyNodes(t *testing.T) {
	if testing.Short() || scaleOf(t).machines > 0 {
		t.Skip("it takes half a minute, or all are told so")
	}
	for file, name := range map[string]string{"partition": "three and two", "three-of-five": "power"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			size := scale{50, usualPods}
			defer size.turn()()
			for _, story := range stories(t, filepath.Join("../../test/scenarios", file+".txtar")) {
				if story.Name == name {
					simulate(t, 1, func(c *cluster) { newScript(c, size).perform(string(story.Data)) })
					return
				}
			}
			t.Fatalf("there is no story %q", name)
		})
	}
}

func stories(t *testing.T, file string) []txtar.File {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return txtar.Parse(b).Files
}
