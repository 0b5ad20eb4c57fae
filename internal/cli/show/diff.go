package show

import "strings"

// context is how many equal lines are shown around a change.
const context = 3

// maxDiff bounds the work: two values of 2,000 lines each.
const maxDiff = 4_000_000

// diff returns what turns a into b, line by line, as diff -u shows it.
func diff(a, b string) string {
	x, y := strings.SplitAfter(a, "\n"), strings.SplitAfter(b, "\n")
	x, y = x[:len(x)-1], y[:len(y)-1] // both end with a newline
	if a == b {
		return "(nothing)\n"
	}
	if len(x)*len(y) > maxDiff {
		return "(too long to compare)\n"
	}
	marked := script(x, y)
	near := make([]bool, len(marked))
	for i, l := range marked {
		if l[0] == ' ' {
			continue
		}
		for j := max(0, i-context); j <= min(len(marked)-1, i+context); j++ {
			near[j] = true
		}
	}
	var out strings.Builder
	for i, l := range marked {
		switch {
		case near[i]:
			out.WriteString(l)
		case i == 0 || near[i-1]:
			out.WriteString("...\n")
		}
	}
	return out.String()
}

// script is every line of both, marked with ' ', '-' or '+': a longest common subsequence.
func script(x, y []string) []string {
	common := make([][]int, len(x)+1)
	for i := range common {
		common[i] = make([]int, len(y)+1)
	}
	for i := len(x) - 1; i >= 0; i-- {
		for j := len(y) - 1; j >= 0; j-- {
			if x[i] == y[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out []string
	i, j := 0, 0
	for i < len(x) || j < len(y) {
		switch {
		case i < len(x) && j < len(y) && x[i] == y[j]:
			out = append(out, " "+x[i])
			i, j = i+1, j+1
		case i < len(x) && (j == len(y) || common[i+1][j] >= common[i][j+1]):
			out = append(out, "-"+x[i])
			i++
		default:
			out = append(out, "+"+y[j])
			j++
		}
	}
	return out
}
