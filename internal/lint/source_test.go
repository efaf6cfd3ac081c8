package lint

import (
	"go/ast"
	"go/token"
	"regexp"
	"strconv"
)

const maxLines = 600

// minReason is the least length of a reason to skip a test: "not on windows" is none; what the
// test needs, and why it is missing, is one.
const minReason = 20

var sleepReason = regexp.MustCompile(`(?m)^sleep: \S`)

// checkSleep has tests wait on events: a sleep is too long on a good day and too short on a bad one.
func checkSleep(f *file, report reporter) {
	if !f.isTest() && !f.in("internal/proctest/...") {
		return
	}
	clock := f.localName("time")
	ast.Inspect(f.tree, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok || sel.Sel.Name != "Sleep" {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == clock && !sleepReason.MatchString(f.note(sel.Pos())) {
			report(sel.Pos(), "time.Sleep in a test: wait on an event or run under synctest; if it must be, give the reason above it: // sleep: reason")
		}
		return true
	})
}

// checkGo has every goroutine say how it ends.
func checkGo(f *file, report reporter) {
	if f.isTestCode() {
		return
	}
	ast.Inspect(f.tree, func(n ast.Node) bool {
		if stmt, ok := n.(*ast.GoStmt); ok && f.note(stmt.Pos()) == "" {
			report(stmt.Pos(), "go statement without a comment: say directly above it who stops the goroutine and who waits for it")
		}
		return true
	})
}

// checkInit keeps the import of a package free of effects.
func checkInit(f *file, report reporter) {
	if f.isTestCode() || f.in("cmd/...") {
		return
	}
	for _, decl := range f.tree.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			report(fn.Pos(), "func init: nothing happens on import here; use a package-level value, sync.OnceValue or an explicit call")
		}
	}
}

// checkSkip has every skipped test give its reason.
func checkSkip(f *file, report reporter) {
	if !f.isTestCode() {
		return
	}
	params := testingParams(f)
	ast.Inspect(f.tree, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok || !params[x.Name] {
			return true
		}
		switch sel.Sel.Name {
		case "Skip", "Skipf", "SkipNow":
			if len(call.Args) == 0 || !isReason(call.Args[0]) {
				report(call.Pos(), "%s.%s without a reason: skip with a literal of at least %d characters that says what is missing", x.Name, sel.Sel.Name, minReason)
			}
		}
		return true
	})
}

func isReason(arg ast.Expr) bool {
	lit, ok := arg.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return false
	}
	text, err := strconv.Unquote(lit.Value)
	return err == nil && len(text) >= minReason
}

// testingParams returns the names of all parameters in f through which a test can be skipped.
func testingParams(f *file) map[string]bool {
	names := make(map[string]bool)
	pkg := f.localName("testing")
	ast.Inspect(f.tree, func(n ast.Node) bool {
		fn, ok := n.(*ast.FuncType)
		if !ok {
			return true
		}
		for _, param := range fn.Params.List {
			typ := param.Type
			if star, ok := typ.(*ast.StarExpr); ok {
				typ = star.X
			}
			sel, ok := typ.(*ast.SelectorExpr)
			if !ok {
				continue
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == pkg {
				for _, name := range param.Names {
					names[name.Name] = true
				}
			}
		}
		return true
	})
	return names
}

// checkLength keeps a file to one idea.
func checkLength(f *file, report reporter) {
	if n := len(f.lines); n > maxLines {
		report(f.tree.Pos(), "%d lines, over the %d of a file: split it by idea", n, maxLines)
	}
}
