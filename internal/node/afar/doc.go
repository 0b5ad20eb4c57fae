// Package afar tells what one side of a partition wrote about the other without seeing it. When the
// sides meet, such judgements are worth nothing against what the other side knows of itself, however
// new they are: handed over, they would end every pod of a side that was never ill.
package afar
