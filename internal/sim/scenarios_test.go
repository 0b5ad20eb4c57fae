package sim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// TestScenarios tells the stories of test/scenarios: one in each file's sections.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("../../test/scenarios/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for i, story := range txtar.Parse(b).Files {
				t.Run(story.Name, func(t *testing.T) {
					simulate(t, uint64(i), func(c *cluster) {
						s := &script{c: c, names: map[string]string{}, servers: map[string]string{}}
						s.tell(string(story.Data))
						if c.together() {
							c.hist.end(c.up()[0].store())
						}
					})
				})
			}
		})
	}
}
