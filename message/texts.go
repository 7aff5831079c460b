package message

// imagePrefix is what an image must begin with to be sent: the providers fetch no other.
const imagePrefix = "https://"

// Texts are what people read, in one language, before a device's variables are in them.
type Texts struct {
	Title, Body, Image, Link Template
	// always have something to say whatever the variables are; sometimes may or may not.
	always, sometimes Shape
}

// Shape says which of Texts have something to say for a device: what a payload has, and what it leaves out, depends on
// this and on nothing else of a device.
type Shape uint8

const (
	HasTitle Shape = 1 << iota
	HasBody
	// HasImage also says that the image is an https URL.
	HasImage
	HasLink

	// Shapes is how many there are.
	Shapes = 1 << iota
)

// Shape is the texts' for a device with these variables. It allocates nothing, and costs nothing where no text depends
// on variables alone.
func (t *Texts) Shape(vars map[string]string) Shape {
	if t.sometimes == 0 {
		return t.always
	}
	return t.always | t.sometimes&t.shape(vars)
}

func (t *Texts) shape(vars map[string]string) (s Shape) {
	if !t.Title.empty(vars) {
		s |= HasTitle
	}
	if !t.Body.empty(vars) {
		s |= HasBody
	}
	if t.Image.begins(vars, imagePrefix) {
		s |= HasImage
	}
	if !t.Link.empty(vars) {
		s |= HasLink
	}
	return s
}

// settle finds out, once, what does not depend on variables.
func (t *Texts) settle() {
	without := t.shape(nil)
	t.always, t.sometimes = without, (Shapes-1)&^without
	if n, all := t.Image.fixed(); all || n >= len(imagePrefix) {
		t.sometimes &^= HasImage // what an image is, is decided by its literal beginning
	} else {
		t.always &^= HasImage // a variable may replace its default
		t.sometimes |= HasImage
	}
	for _, text := range []struct {
		Template
		bit Shape
	}{{t.Title, HasTitle}, {t.Body, HasBody}, {t.Link, HasLink}} {
		if len(text.Template) == 0 {
			t.sometimes &^= text.bit
		}
	}
}

func (t Texts) filledFrom(next Texts) Texts {
	fill := func(own, other Template) Template {
		if own == nil {
			return other
		}
		return own
	}
	return Texts{
		Title: fill(t.Title, next.Title),
		Body:  fill(t.Body, next.Body),
		Image: fill(t.Image, next.Image),
		Link:  fill(t.Link, next.Link),
	}
}
