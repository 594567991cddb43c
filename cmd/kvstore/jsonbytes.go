package main

import (
	"encoding/base64"
	"fmt"
	"unicode/utf8"
)

const jsonHelp = `In JSON, bytes that are no UTF-8 text come as base64, under a name with 64 at its
end: "key64" instead of "key".`

// appendMember appends a member of a JSON object, which the caller begins with
// { and ends with }: text under its name, and what is no valid UTF-8 as base64
// under the name with 64 at its end.
func appendMember(dst []byte, name string, value []byte) []byte {
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	if utf8.Valid(value) {
		dst = fmt.Appendf(dst, `"%s":`, name)
		return appendJSONString(dst, value)
	}
	dst = fmt.Appendf(dst, `"%s64":"`, name)
	return append(base64.StdEncoding.AppendEncode(dst, value), '"')
}

func appendJSONString(dst, text []byte) []byte {
	dst = append(dst, '"')
	for _, b := range text {
		switch {
		case b == '"' || b == '\\':
			dst = append(dst, '\\', b)
		case b < ' ':
			dst = fmt.Appendf(dst, `\u%04x`, b)
		default:
			dst = append(dst, b)
		}
	}
	return append(dst, '"')
}
