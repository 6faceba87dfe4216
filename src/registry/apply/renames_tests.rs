//! Tests of `fleet_commands`: which VM is which, and states.

use super::*;

/// What a plan does, with what it is carried out on changed by it.
fn done(world: &mut World, fleet: &Fleet, prune: Prune) -> Vec<String> {
    let texts = world.plan(fleet, prune);
    assert_eq!(world.apply(fleet, prune), Vec::<String>::new());
    assert_eq!(world.plan(fleet, prune), Vec::<String>::new());
    texts
}

const SMALL: &str = "[[address]]
name='s0'
public='127.0.77.1'
[[user]]
name='a'
[[user]]
name='b'
";

/// A VM of `a`, without an id where that is empty.
fn vm(name: &str, id: &str, port: u16) -> String {
    let id = if id.is_empty() { String::new() } else { format!("id='{id}'\n") };
    format!("[[vm]]\nname='{name}'\n{id}owner='a'\nssh='127.0.0.1:{port}'\nno_address=true\n")
}

#[test]
fn a_vm_that_a_fleet_calls_otherwise_is_renamed() {
    let vm = |text: &str| read(&format!("{SMALL}{text}"));
    let stands = |world: &World| {
        let names = world.model.vm_names().iter();
        names.map(|(name, serial)| (name.to_string(), *serial)).collect::<Vec<_>>()
    };
    for prune in [Prune::FromFleet, Prune::Everything] {
        let mut world = World::new();
        let before = vm("[[vm]]
name='v'
owner='a'
ssh='127.0.0.1:22'
address='s0'
share=['b']
");
        done(&mut world, &before, prune);
        let serial = stands(&world)[0].1;
        // No word of an id: the same owner and endpoint say it.
        let after = vm("[[vm]]
name='w'
owner='a'
ssh='127.0.0.1:22'
address='s0'
login='root'
");
        let texts = done(&mut world, &after, prune);
        assert_eq!(texts, ["rename VM v to w", "take VM w from b", "change VM w"]);
        assert_eq!(stands(&world), [("w".to_owned(), serial)]);
        // An id says it whatever else is new.
        let after = vm("[[vm]]
name='x'
id='v'
owner='b'
ssh='127.0.0.1:23'
address='s0'
");
        let texts = done(&mut world, &after, prune);
        assert_eq!(texts, ["rename VM w to x", "transfer VM x from a to b", "change VM x"]);
        assert_eq!(stands(&world), [("x".to_owned(), serial)]);
    }
    // Where nothing goes, only an id can say it.
    let mut world = World::new();
    done(
        &mut world,
        &vm("[[vm]]
name='v'
owner='a'
ssh='127.0.0.1:22'
"),
        Prune::Nothing,
    );
    let by_id = vm("[[vm]]
name='w'
id='v'
owner='a'
ssh='127.0.0.1:22'
");
    assert_eq!(done(&mut world, &by_id, Prune::Nothing), ["rename VM v to w"]);
    let other = vm("[[vm]]
name='z'
owner='a'
ssh='127.0.0.1:22'
no_address=true
");
    assert_eq!(done(&mut world, &other, Prune::Nothing), ["add VM z of a"]);
}

#[test]
fn vms_that_pass_their_names_on_are_renamed_in_the_order_in_which_names_are_free() {
    let mut world = World::new();
    let fleet = |vms: [String; 3]| read(&format!("{SMALL}{}", vms.concat()));
    done(&mut world, &fleet([vm("c", "c", 3), vm("b", "b", 2), vm("a", "a", 1)]), Prune::FromFleet);
    let after = fleet([vm("b", "a", 1), vm("c", "b", 2), vm("d", "c", 3)]);
    let texts = done(&mut world, &after, Prune::FromFleet);
    assert_eq!(texts, ["rename VM c to d", "rename VM b to c", "rename VM a to b"]);
    // Two at one place: nobody knows which is which, and none is taken for the other.
    let after = read(&[SMALL, &vm("x", "", 1), &vm("y", "", 1)].concat());
    let texts = done(&mut world, &after, Prune::FromFleet);
    assert!(texts.iter().all(|text| !text.contains("rename")), "{texts:?}");
}

#[test]
fn a_vm_never_takes_a_name_that_another_one_keeps() {
    let mut world = World::new();
    let fleet = |vms: &[String]| read(&format!("{SMALL}{}", vms.concat()));
    done(&mut world, &fleet(&[vm("db", "db", 22)]), Prune::Nothing);
    done(&mut world, &fleet(&[vm("web", "web", 22)]), Prune::FromFleet);
    // A command's VM has the name and stays; two that exchange their names.
    let cases = [fleet(&[vm("db", "web", 22)]), fleet(&[vm("db", "web", 22), vm("web", "db", 22)])];
    for fleet in &cases {
        let refusal = plan(fleet, &world.model, Prune::FromFleet).unwrap_err();
        assert!(refusal.to_string().contains("as another VM is called"), "{refusal}");
    }
    // One that goes makes its name free.
    let texts = done(&mut world, &cases[0], Prune::Everything);
    assert_eq!(texts, ["remove VM db", "rename VM web to db"]);
}

#[test]
fn an_id_that_cannot_be_is_refused_before_anything_is_done() {
    let mut world = World::new();
    let fleet = |vms: &[String]| read(&format!("{SMALL}{}", vms.concat()));
    done(&mut world, &fleet(&[vm("v", "old", 22)]), Prune::Nothing);
    let cases = [
        (vec![vm("v", "other", 22)], "has the id `old`, not `other`"),
        (vec![vm("v", "old", 22), vm("w", "old", 22)], "is another VM's too"),
        (vec![vm("v", "old", 22), vm("old", "", 22)], "is another VM's too"),
    ];
    for (vms, told) in cases {
        let refusal = plan(&fleet(&vms), &world.model, Prune::FromFleet).unwrap_err();
        assert!(refusal.to_string().contains(told), "{refusal}");
    }
}

#[test]
fn a_vm_in_maintenance_is_made_so_and_a_drained_address_still_gets_its_vms() {
    let mut world = World::new();
    let text = "[[address]]
name='s0'
public='127.0.77.1'
state='drain'
[[user]]
name='a'
origin='fleet'
                [[vm]]
name='v'
id='older'
owner='a'
ssh='127.0.0.1:22'
address='s0'
state='maint'
";
    let fleet = read(text);
    let texts = done(&mut world, &fleet, Prune::Nothing);
    assert_eq!(texts.last().unwrap(), "put no more VMs at address s0");
    assert_eq!(Fleet::of(&world.model), fleet);
    let (_, vm) = world.model.vm_named(&label("v")).unwrap();
    assert_eq!((vm.document.state, &*vm.document.id), (VmState::Maint, "older"));
    let back = read(&text.replace("drain", "ready").replace("maint", "ready"));
    assert_eq!(
        done(&mut world, &back, Prune::Nothing),
        ["put VMs at address s0 again", "change VM v"]
    );
}
