package producer

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.html
var docsSource string

// docsOperation is one operation as the page shows it.
type docsOperation struct {
	Method, Path, Scope, Summary, Description string
	Query                                     []*huma.Param
	Body                                      []docsField
	Statuses                                  []string
}

type docsField struct {
	Name, Type, Doc string
	Required        bool
}

// docsPage renders the documentation once, from the description itself and without a script, so that it needs no network.
func docsPage(o *huma.OpenAPI) ([]byte, error) {
	var operations []docsOperation
	for path, item := range o.Paths {
		for method, op := range map[string]*huma.Operation{"GET": item.Get, "PUT": item.Put, "POST": item.Post, "DELETE": item.Delete} {
			if op != nil {
				operations = append(operations, describe(o, method, path, op))
			}
		}
	}
	slices.SortFunc(operations, func(a, b docsOperation) int {
		return strings.Compare(a.Path+a.Method, b.Path+b.Method)
	})
	var page bytes.Buffer
	if err := template.Must(template.New("docs").Parse(docsSource)).Execute(&page, operations); err != nil {
		return nil, fmt.Errorf("producer: render the documentation: %w", err)
	}
	return page.Bytes(), nil
}

func describe(o *huma.OpenAPI, method, path string, op *huma.Operation) docsOperation {
	d := docsOperation{Method: method, Path: path, Summary: op.Summary, Description: op.Description}
	if len(op.Security) > 0 {
		d.Scope = op.Security[0][keySecurity][0]
	}
	for _, p := range op.Parameters {
		if p.In != "path" {
			d.Query = append(d.Query, p)
		}
	}
	if op.RequestBody != nil {
		for _, media := range op.RequestBody.Content {
			d.Body = docsFields(o, media.Schema, "", 0)
		}
	}
	for status := range op.Responses {
		d.Statuses = append(d.Statuses, status)
	}
	slices.Sort(d.Statuses)
	return d
}

// docsFields lists a schema's properties, and those of objects in it, as paths.
func docsFields(o *huma.OpenAPI, s *huma.Schema, prefix string, depth int) []docsField {
	if s != nil && s.Ref != "" {
		s = o.Components.Schemas.SchemaFromRef(s.Ref)
	}
	if s == nil || depth > 3 {
		return nil
	}
	var fields []docsField
	for name, p := range s.Properties {
		inner := p
		kind := p.Type
		if kind == "array" {
			inner, kind = p.Items, "list"
		}
		if kind == "" {
			kind = "object"
		}
		fields = append(fields, docsField{prefix + name, kind, p.Description, slices.Contains(s.Required, name)})
		fields = append(fields, docsFields(o, inner, prefix+name+".", depth+1)...)
	}
	slices.SortFunc(fields, func(a, b docsField) int { return strings.Compare(a.Name, b.Name) })
	return fields
}
