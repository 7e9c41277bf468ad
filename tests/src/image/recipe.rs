//! The part of the Dockerfile format that our images need. Anything else is refused by name, so that `docker build` of
//! the same file cannot mean something different.

use thiserror::Error;

/// What a Dockerfile says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    /// `COPY source destination`, in order; folders of the build context, with the destination below the image's root.
    pub copies: Vec<(String, String)>,
    /// `ENV name=value`, in order.
    pub environment: Vec<String>,
    /// `USER`.
    pub user: Option<String>,
    /// `ENTRYPOINT`, in its list form.
    pub entrypoint: Vec<String>,
    /// `CMD`, in its list form.
    pub command: Vec<String>,
    /// `EXPOSE`.
    pub ports: Vec<u16>,
}

/// Why a Dockerfile was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecipeError {
    /// It does not begin with `FROM scratch`.
    #[error("the first instruction must be FROM scratch, not {found:?}")]
    Base {
        /// The first instruction.
        found: String,
    },
    /// An instruction outside of the part that is understood.
    #[error(
        "line {line}: {instruction} is not supported; only FROM scratch, COPY, ENV, USER, ENTRYPOINT, CMD and EXPOSE are"
    )]
    Instruction {
        /// Its line, from 1.
        line: usize,
        /// The instruction.
        instruction: String,
    },
    /// The arguments of an instruction are not of the form that is understood.
    #[error("line {line}: {instruction} needs {expected}, not {found:?}")]
    Arguments {
        /// Its line, from 1.
        line: usize,
        /// The instruction.
        instruction: String,
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: String,
    },
}

impl Recipe {
    /// Reads a Dockerfile.
    ///
    /// # Errors
    /// If it says something that is not understood.
    pub fn parse(text: &str) -> Result<Self, RecipeError> {
        let mut instructions = text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        match instructions.next() {
            Some((_, "FROM scratch")) => {}
            first => return Err(RecipeError::Base { found: first.map_or("", |(_, line)| line).to_owned() }),
        }
        let mut recipe = Self::default();
        for (line, text) in instructions {
            let (instruction, arguments) = text.split_once(' ').unwrap_or((text, ""));
            let refuse = |expected| RecipeError::Arguments {
                line,
                instruction: instruction.to_owned(),
                expected,
                found: arguments.to_owned(),
            };
            let list = || serde_json::from_str::<Vec<String>>(arguments).map_err(|_| refuse("a JSON list of strings"));
            match instruction {
                "COPY" => match arguments.split_whitespace().collect::<Vec<_>>()[..] {
                    [source, destination] if source.ends_with('/') && destination.starts_with('/') => {
                        recipe.copies.push((source.to_owned(), destination.to_owned()));
                    }
                    _ => return Err(refuse("a folder of the build context, ending in /, and an absolute path")),
                },
                // Quotes, escapes and several variables on a line are what Docker would read otherwise.
                "ENV" => match arguments.split_once('=') {
                    Some((name, _)) if !name.is_empty() && !arguments.contains([' ', '"', '\'', '\\', '$']) => {
                        recipe.environment.push(arguments.to_owned());
                    }
                    _ => return Err(refuse("one name=value without spaces, quotes and variables")),
                },
                "USER" => recipe.user = Some(arguments.to_owned()),
                "ENTRYPOINT" => recipe.entrypoint = list()?,
                "CMD" => recipe.command = list()?,
                "EXPOSE" => {
                    for port in arguments.split_whitespace() {
                        recipe.ports.push(port.parse().map_err(|_| refuse("port numbers"))?);
                    }
                }
                _ => return Err(RecipeError::Instruction { line, instruction: instruction.to_owned() }),
            }
        }
        Ok(recipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipes_of_our_images_are_understood() {
        let recipe = Recipe::parse(include_str!("../../../images/runtime.Dockerfile")).unwrap();
        assert_eq!(
            recipe,
            Recipe {
                copies: vec![("root/".into(), "/".into())],
                environment: vec![],
                user: Some("65532:65532".into()),
                entrypoint: vec!["/usr/local/bin/swiftbalancer-runtime".into()],
                command: vec![],
                ports: vec![8000, 8001, 8002, 8003, 8004, 8005],
            }
        );
        let cuda = Recipe::parse(include_str!("../../../images/runtime-cuda.Dockerfile")).unwrap();
        let environment = ["NVIDIA_DRIVER_CAPABILITIES=compute,utility", "CUDA_DEVICE_MAX_CONNECTIONS=32"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(cuda, Recipe { environment, ..recipe });
        for text in [
            include_str!("../../../images/operator.Dockerfile"),
            include_str!("../../../images/model.Dockerfile"),
            include_str!("../../../images/test-pod.Dockerfile"),
        ] {
            Recipe::parse(text).unwrap();
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name_and_line() {
        for (text, message) in [
            ("FROM debian:12", "the first instruction must be FROM scratch, not \"FROM debian:12\""),
            ("", "the first instruction must be FROM scratch, not \"\""),
            (
                "FROM scratch\n# why\nRUN true",
                "line 3: RUN is not supported; only FROM scratch, COPY, ENV, USER, ENTRYPOINT, CMD and EXPOSE are",
            ),
            ("FROM scratch\nCMD sh", "line 2: CMD needs a JSON list of strings, not \"sh\""),
            (
                "FROM scratch\nENV A=1 B=2",
                "line 2: ENV needs one name=value without spaces, quotes and variables, not \"A=1 B=2\"",
            ),
            (
                "FROM scratch\nENV =1",
                "line 2: ENV needs one name=value without spaces, quotes and variables, not \"=1\"",
            ),
            ("FROM scratch\nEXPOSE http", "line 2: EXPOSE needs port numbers, not \"http\""),
            (
                "FROM scratch\nCOPY --from=build /a /b",
                "line 2: COPY needs a folder of the build context, ending in /, and an absolute path, not \"--from=build /a /b\"",
            ),
        ] {
            assert_eq!(Recipe::parse(text).unwrap_err().to_string(), message);
        }
    }
}
