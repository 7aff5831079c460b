// Package message is what is sent: its JSON and YAML form, its checks, and its templates compiled for rendering.
//
// The two types to know are [Message], which the API, campaign files and event rules hold and which [Message.Proto]
// checks and turns into a record, and [Compiled], which renders one for a device.
//
// # Templates
//
// The text of a message (title, body, image, link, and the values of data) may hold variables:
//
//	Hello {{ attributes.first_name | "there" }}, your code is {{ data.code }}
//
// A variable that the device does not have, or has empty, renders as its default, the quoted text after "|"; without a
// default it renders as nothing. Strings are in double or single quotes (JSON is easier to write with single ones); in
// them a backslash takes the next character as it is. A string alone stands for itself: {{ "{{" }} renders as {{. A
// value is never read as a template again.
//
// Which variables there are depends on what the message answers to: see [Scope].
package message
